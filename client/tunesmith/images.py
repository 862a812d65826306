"""Generated images."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from tunesmith import notebook

if TYPE_CHECKING:
    from PIL.Image import Image

_NO_PILLOW = "pil() needs Pillow, which is not installed: run `pip install 'tunesmith[images]'`"


class GeneratedImage(BaseModel):
    """An image, encoded as the request asked, and the seed that draws the same image again."""

    data: bytes
    seed: int

    def save(self, path: str | Path) -> Path:
        """Write the image to a file as it was sent, and return the file's path."""
        Path(path).write_bytes(self.data)
        return Path(path)

    def pil(self) -> "Image":
        """Return the image as a `PIL.Image`. Raises ModuleNotFoundError without Pillow."""
        try:
            from PIL import Image  # noqa: PLC0415 - an extra of the wheel
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(_NO_PILLOW) from error
        return Image.open(io.BytesIO(self.data))

    def _repr_html_(self) -> str:
        """Return the image for a notebook."""
        return notebook.figure(notebook.data_url(self.data), f"seed {self.seed}")


class Generated(BaseModel):
    """The images of one request. `notice` names fields that the server did not apply as sent; it is empty if there are none.

    `removed` counts the images that the server's safety checker refused.
    """

    images: list[GeneratedImage]
    notice: str
    removed: int = 0

    def _repr_html_(self) -> str:
        """Return the images for a notebook, side by side."""
        return "".join(notebook.figure(notebook.data_url(image.data), f"seed {image.seed}") for image in self.images)
