"""Uploaded images: decoded and encoded again, in a child process with bounded memory and time.

The clean copy has the pixels and nothing else of the file: no EXIF with a location, no comments, no script or archive after the
image's end. The child process is `python -m shared.formats.image SOURCE TARGET MAX_PIXELS`.
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
"""Generous, so that a busy machine refuses no good image; the limit of CPU time applies first."""
_REFUSED = 3
_JPEG_QUALITY = 95


class CleanImage(BaseModel):
    """A clean copy: its format (OctoAI's name, and the file's suffix), and its size in pixels after rotation."""

    file_format: Literal["png", "jpg"]
    width: int
    height: int

    @property
    def content_type(self) -> str:
        """The media type of the file."""
        return "image/png" if self.file_format == "png" else "image/jpeg"


async def clean(source: Path, target: Path, *, max_pixels: int) -> CleanImage:
    """Write a clean copy of the image to `target`: RGB or greyscale, 8 bits a channel, upright, without metadata.

    JPEG stays JPEG (quality 95, chroma not subsampled) and PNG stays PNG. 16 bits become 8, CMYK becomes RGB, and transparent
    pixels become white. Colour profiles are dropped: pixels are read as sRGB.

    Raises InvalidError that says why the image is refused.
    """
    child = await asyncio.create_subprocess_exec(
        # Without this process's environment, which has secrets.
        *(sys.executable, "-m", "shared.formats.image", str(source), str(target), str(max_pixels)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        output, _ = await asyncio.wait_for(child.communicate(), _WALL_S)
    except TimeoutError:
        msg = f"the image took longer than {_WALL_S:.0f} s to decode; upload a smaller one"
        raise InvalidError(msg) from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode == 0:
        return CleanImage.model_validate_json(output)
    if child.returncode == _REFUSED:
        raise InvalidError(json.loads(output)["reason"])
    msg = f"the image could not be decoded within {_MEMORY_BYTES >> 20} MiB of memory and {_CPU_S} s; upload a smaller one"
    raise InvalidError(msg)


def _bound() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_OUTPUT_BYTES, _OUTPUT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _clean(source: Path, target: Path, max_pixels: int) -> CleanImage:
    # Imported here, so that services do not load Pillow, and Pillow is loaded within the bounds.
    from PIL import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415

    # The size in the header is checked below, before a pixel is decoded.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(source, formats=["PNG", "JPEG"]) as image:
            width, height = image.size
            if width * height > max_pixels:
                msg = f"the image has {width} x {height} px; at most {max_pixels} px in all are allowed"
                raise InvalidError(msg)
            if min(width, height) < MIN_SIDE_PX:
                msg = f"the image has {width} x {height} px; each side must have at least {MIN_SIDE_PX} px"
                raise InvalidError(msg)
            file_format = "png" if image.format == "PNG" else "jpg"
            # Phones append a depth map or a second exposure to a JPEG (MPO): the first image is the wanted one.
            if file_format == "png" and getattr(image, "n_frames", 1) > 1:
                msg = "the image is animated; upload one frame as PNG or JPEG"
                raise InvalidError(msg)
            image.load()
            upright = ImageOps.exif_transpose(image)
            plain = _eight_bit(upright)
    except UnidentifiedImageError:
        msg = "the file is neither PNG nor JPEG"
        raise InvalidError(msg) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        msg = f"the image is damaged: {error}"
        raise InvalidError(msg) from error
    # A new image has nothing of what the decoder attached to the old one.
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
        background = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")
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
