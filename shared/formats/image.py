"""Uploaded pictures: decoded and written anew, in a process of their own with bounded memory and time.

Whatever else a file carries (EXIF with a place in it, comments, a script or an archive behind the picture's end) stays
behind: the clean copy holds pixels and nothing else. `python -m shared.formats.image SOURCE TARGET MAX_PIXELS` is the child.
"""

import asyncio
import json
import os
import resource
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from shared.errors import InvalidError

if TYPE_CHECKING:
    from PIL import Image

MIN_SIDE_PX = 32
_CPU_S = 20
_MEMORY_BYTES = 1 << 30
_OUTPUT_BYTES = 256 * 2**20
_WALL_S = 120.0
"""Generous: a busy machine must not turn a good picture down, and the CPU limit binds first."""
_REFUSED = 3
_JPEG_QUALITY = 95


class CleanImage(BaseModel):
    """A clean copy: its format, as OctoAI calls it and as its file ends, and its size in pixels after rotation."""

    file_format: Literal["png", "jpg"]
    width: int
    height: int

    @property
    def content_type(self) -> str:
        """The media type to store it under."""
        return "image/png" if self.file_format == "png" else "image/jpeg"


async def clean(source: Path, target: Path, *, max_pixels: int) -> CleanImage:
    """Write the picture anew to `target`: RGB or greyscale, 8 bits a channel, upright, without any metadata.

    JPEG stays JPEG (quality 95, chroma not subsampled), PNG stays PNG; 16 bits become 8, CMYK becomes RGB, what is
    transparent becomes white. Colour profiles are dropped, pixels are taken as sRGB.

    Raises InvalidError that says why the picture is refused.
    """
    child = await asyncio.create_subprocess_exec(
        # Isolated from the environment, which holds our secrets, and from the folder it is started in.
        *(sys.executable, "-m", "shared.formats.image", str(source), str(target), str(max_pixels)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        output, _ = await asyncio.wait_for(child.communicate(), _WALL_S)
    except TimeoutError:
        msg = f"the picture took longer than {_WALL_S:.0f} s to decode"
        raise InvalidError(msg) from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode == 0:
        return CleanImage.model_validate_json(output)
    if child.returncode == _REFUSED:
        raise InvalidError(json.loads(output)["reason"])
    msg = f"the picture could not be decoded within {_MEMORY_BYTES >> 20} MiB of memory and {_CPU_S} s"
    raise InvalidError(msg)


def _bound() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_OUTPUT_BYTES, _OUTPUT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _clean(source: Path, target: Path, max_pixels: int) -> CleanImage:
    # Here, so that a service that imports this module does not pay for Pillow, and Pillow sees the bounds.
    from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415

    # The header's size is checked below, against our own limit, before a pixel is decoded.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(source, formats=["PNG", "JPEG"]) as image:
            width, height = image.size
            if width * height > max_pixels:
                msg = f"the picture is {width} x {height} px; at most {max_pixels} px in all are allowed"
                raise InvalidError(msg)
            if min(width, height) < MIN_SIDE_PX:
                msg = f"the picture is {width} x {height} px; each side must have at least {MIN_SIDE_PX} px"
                raise InvalidError(msg)
            file_format = "png" if image.format == "PNG" else "jpg"
            # Phones append a depth map or a second exposure to a JPEG (MPO), and the first picture is the one meant.
            if file_format == "png" and getattr(image, "n_frames", 1) > 1:
                msg = "the picture is animated; send one frame of it as PNG or JPEG"
                raise InvalidError(msg)
            image.load()
            upright = ImageOps.exif_transpose(image)
            plain = _eight_bit(upright)
    except UnidentifiedImageError:
        msg = "the file is neither PNG nor JPEG"
        raise InvalidError(msg) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        msg = f"the picture is damaged: {error}"
        raise InvalidError(msg) from error
    # A fresh picture: nothing that the decoder attached to the old one can be written along.
    fresh = Image.new(plain.mode, plain.size)
    fresh.paste(plain)
    if file_format == "png":
        fresh.save(target, "PNG")
    else:
        fresh.save(target, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return CleanImage(file_format=file_format, width=fresh.width, height=fresh.height)


def _eight_bit(image: "Image.Image") -> "Image.Image":
    from PIL import Image  # noqa: PLC0415

    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        # Pillow clips where it should scale.
        return image.convert("I").point(lambda level: level * (1 / 256)).convert("L")
    if image.has_transparency_data:
        ground = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    return image.convert("L" if image.mode in {"1", "L"} else "RGB")


def _main(source: str, target: str, max_pixels: str) -> int:
    _bound()
    warnings.simplefilter("ignore")
    try:
        print(_clean(Path(source), Path(target), int(max_pixels)).model_dump_json())
    except InvalidError as error:
        print(json.dumps({"reason": error.message}))
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
