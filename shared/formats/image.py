"""Uploaded images: decoded and encoded again in the confined child, with bounded memory and time.

Whatever else a file carries (EXIF with a place in it, comments, a script or an archive behind the image's end) stays behind:
the clean copy holds pixels and nothing else.
"""

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from pydantic import BaseModel, TypeAdapter

from shared.errors import InvalidError
from shared.formats import sandbox
from shared.formats.confinement import Limits
from shared.formats.sandbox import Reader

if TYPE_CHECKING:
    from PIL import Image

MIN_SIDE_PX = 32
_OUTPUT_BYTES = 256 * 2**20
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
    """Write a clean copy of the image to `target`: RGB or greyscale, 8 bits a channel, upright, without any metadata.

    JPEG stays JPEG (quality 95, chroma not subsampled) and PNG stays PNG. 16 bits become 8, CMYK becomes RGB, and transparent
    pixels become white. Colour profiles are dropped: pixels are read as sRGB.

    Raises InvalidError that says why the image is refused, and what `Sandbox.read` raises.
    """
    return await sandbox.read(_READER, "the image", source, max_pixels, target=target)


def clean_file(source: BinaryIO, target: BinaryIO, max_pixels: int) -> CleanImage:
    """Do as `clean`, in this process, which should be a confined one."""
    # Here, so that a service that imports this module does not pay for Pillow.
    from shared.formats.pillow import Image, ImageOps, UnidentifiedImageError  # noqa: PLC0415

    # The size in the header is checked below, before a pixel is decoded.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(source, formats=["PNG", "JPEG"]) as image:
            width, height = image.size
            if width * height > max_pixels:
                msg = f"the image has {width} x {height} px; at most {max_pixels} px in all are allowed; scale it down"
                raise InvalidError(msg)
            if min(width, height) < MIN_SIDE_PX:
                msg = f"the image has {width} x {height} px; each side must have at least {MIN_SIDE_PX} px"
                raise InvalidError(msg)
            file_format = "png" if image.format == "PNG" else "jpg"
            # Phones append a depth map or a second exposure to a JPEG (MPO), and the first image is the one meant.
            if file_format == "png" and getattr(image, "n_frames", 1) > 1:
                msg = "the image is animated; send one frame of it as PNG or JPEG"
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
    # A fresh image: nothing that the decoder attached to the old one can be written along.
    fresh = Image.new(plain.mode, plain.size)
    fresh.paste(plain)
    if file_format == "png":
        fresh.save(target, "PNG")
    else:
        fresh.save(target, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    return CleanImage(file_format=file_format, width=fresh.width, height=fresh.height)


def _eight_bit(image: "Image.Image") -> "Image.Image":
    from shared.formats.pillow import Image  # noqa: PLC0415 - see above

    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        # Pillow clips where it should scale.
        return image.convert("I").point(lambda level: level * (1 / 256)).convert("L")
    if image.has_transparency_data:
        background = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")
    return image.convert("L" if image.mode in {"1", "L"} else "RGB")


_READER = Reader(
    clean_file,
    TypeAdapter(CleanImage),
    imports=["shared.formats.pillow"],
    limits=Limits(output_bytes=_OUTPUT_BYTES),
)
