"""Uploaded images: decoded and encoded again in the confined child, with bounded memory and time.

Whatever else a file carries (EXIF with a place in it, comments, a script or an archive behind the image's end) stays behind:
the clean copy holds pixels and nothing else.
"""

import math
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

from pydantic import BaseModel, TypeAdapter

from shared.errors import InvalidError
from shared.formats import mistaken, sandbox
from shared.formats.confinement import Limits
from shared.formats.image_container import orientation, take_apart
from shared.formats.sandbox import Reader

if TYPE_CHECKING:
    from PIL import Image

MIN_SIDE_PX = 32
MAX_DECODED_PIXELS = 64_000_000
"""Largest image that is decoded: phones take up to 50 megapixels. A JPEG may have more, since it is decoded at a smaller size."""
_OUTPUT_BYTES = 256 * 2**20
_JPEG_QUALITY = 95
_KINDS = "PNG, JPEG, WebP or AVIF"
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


class CleanImage(BaseModel):
    """A clean copy: its format (OctoAI's name, and the file's suffix), and its size in pixels after rotation."""

    file_format: Literal["png", "jpg"]
    width: int
    height: int
    scaled_from: tuple[int, int] | None = None
    """The size in pixels of the image as it was sent, where it was scaled down."""
    sent_type: str
    """The media type of the file as it was sent."""

    @property
    def content_type(self) -> str:
        """The media type of the file."""
        return "image/png" if self.file_format == "png" else "image/jpeg"

    @property
    def notice(self) -> str:
        """What was changed about the image that its owner should know; empty if nothing was."""
        if self.scaled_from is None:
            return ""
        width, height = self.scaled_from
        return f"scaled down from {width} x {height} px to {self.width} x {self.height} px, the most that is stored"


async def clean(source: Path, target: Path, *, max_pixels: int) -> CleanImage:
    """Write a clean copy of the image to `target`: RGB or greyscale, 8 bits a channel, upright, without any metadata.

    Reads PNG, JPEG, WebP and AVIF, and HEIC where the package pi-heif is installed. PNG stays PNG; all others become JPEG
    (quality 95, chroma not subsampled), which every client of OctoAI's API knows. Images of more than `max_pixels` are scaled
    down. Colours are converted to sRGB by the image's profile; 16 bits become 8, and transparent pixels become white. Metadata
    that cannot be read counts as none.

    Raises InvalidError that says why the image is refused, and what `Sandbox.read` raises.
    """
    with source.open("rb") as file:
        reader = _HEIC_READER if _is_heic(file.read(12)) else _READER
    return await sandbox.read(reader, "the image", source, max_pixels, target=target)


def clean_file(source: BinaryIO, target: BinaryIO, max_pixels: int) -> CleanImage:
    """Do as `clean`, in this process, which should be a confined one."""
    # Here, so that a service that imports this module does not pay for Pillow.
    from shared.formats.pillow import FORMATS, Image, UnidentifiedImageError  # noqa: PLC0415

    # The size in the header is checked below, before a pixel is decoded.
    Image.MAX_IMAGE_PIXELS = None
    parts = take_apart(source.read())
    try:
        with Image.open(BytesIO(parts.data), formats=FORMATS) as image:
            _check_single(is_animated=parts.is_animated or getattr(image, "n_frames", 1) > 1)
            # pi-heif 1.4 has None where there is none.
            exif = parts.exif or image.info.get("exif") or b""
            profile = parts.profile or image.info.get("icc_profile") or b""
            sent = image.size
            _check_size(image, max_pixels)
            image.load()
            sent_type = Image.MIME[image.format or ""]
            plain = _in_srgb(_scaled(_simple(image), sent, max_pixels), profile)
    except UnidentifiedImageError:
        raise InvalidError(_not_read(parts.data)) from None
    except (InvalidError, MemoryError, RecursionError):
        raise
    except Exception as error:  # Pillow's parsers and pi-heif raise whatever they run into, even AssertionError
        msg = f"the image is damaged: {str(error) or type(error).__name__}; export it again with the program that made it"
        raise InvalidError(msg) from error
    turn = _turn(exif)
    upright = plain if turn is None else plain.transpose(turn)
    # A fresh image: nothing that the decoder attached to the old one can be written along.
    fresh = Image.new(upright.mode, upright.size)
    fresh.paste(upright)
    is_png = sent_type == "image/png"
    if is_png:
        fresh.save(target, "PNG")
    else:
        fresh.save(target, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    is_on_its_side = turn is not None and upright.size == (plain.height, plain.width)
    scaled_from = (sent[1], sent[0]) if is_on_its_side else sent
    is_scaled = upright.width * upright.height < sent[0] * sent[1]
    return CleanImage(
        file_format="png" if is_png else "jpg",
        width=fresh.width,
        height=fresh.height,
        scaled_from=scaled_from if is_scaled else None,
        sent_type=sent_type,
    )


def _check_single(*, is_animated: bool) -> None:
    if is_animated:
        msg = "the image is animated, or the file holds several; send one of them as PNG or JPEG"
        raise InvalidError(msg)


def _check_size(image: "Image.Image", max_pixels: int) -> None:
    """Raise InvalidError for an image that is too small, or too large to be decoded; let a JPEG be decoded at a smaller size."""
    width, height = image.size
    if min(width, height) < MIN_SIDE_PX:
        msg = f"the image has {width} x {height} px; each side must have at least {MIN_SIDE_PX} px"
        raise InvalidError(msg)
    factor = _factor(image.size, max_pixels)
    if factor < 1:
        # Only a JPEG can do so; its sides stay at least as long as these.
        image.draft(None, (int(width * factor) + 1, int(height * factor) + 1))
    if image.width * image.height > MAX_DECODED_PIXELS:
        msg = f"the image has {width} x {height} px; at most {MAX_DECODED_PIXELS} px in all are allowed; scale it down"
        raise InvalidError(msg)


def _factor(size: tuple[int, int], max_pixels: int) -> float:
    return min(1.0, math.sqrt(max_pixels / (size[0] * size[1])))


def _simple(image: "Image.Image") -> "Image.Image":
    """Return the image in a mode that can be scaled and whose colours can be converted: L, RGB, RGBA or CMYK."""
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        # Pillow clips where it should scale.
        return image.convert("I").point(lambda level: level * (1 / 256)).convert("L")
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode in {"L", "RGB", "CMYK"}:
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _scaled(image: "Image.Image", sent: tuple[int, int], max_pixels: int) -> "Image.Image":
    from shared.formats.pillow import Image  # noqa: PLC0415 - as in clean_file

    factor = _factor(sent, max_pixels)
    if factor == 1:
        return image
    # Rounding down keeps the product within the limit.
    size = (max(int(sent[0] * factor), 1), max(int(sent[1] * factor), 1))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _in_srgb(image: "Image.Image", profile: bytes) -> "Image.Image":
    """Return the image as RGB or greyscale with its colours in sRGB, on white."""
    from shared.formats.pillow import Image  # noqa: PLC0415 - as in clean_file

    if image.mode == "RGBA":
        background = Image.new("RGBA", image.size, "white")
        opaque = _converted(image.convert("RGB"), profile).convert("RGB")
        opaque.putalpha(image.getchannel("A"))
        return Image.alpha_composite(background, opaque).convert("RGB")
    converted = _converted(image, profile)
    return converted if converted.mode == "L" else converted.convert("RGB")


def _converted(image: "Image.Image", profile: bytes) -> "Image.Image":
    """Convert the colours of an L, RGB or CMYK image from its profile to sRGB; return it as it is where that cannot be done."""
    from shared.formats.pillow import ImageCms  # noqa: PLC0415 - as in clean_file

    if not profile:
        return image
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        target: Any = cast("Any", ImageCms).createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        # It is damaged, or made for another kind of image.
        return image
    # It returns no image only when it changes the given one in place.
    return image if converted is None else converted.convert("L") if image.mode == "L" else converted


def _turn(exif: bytes) -> "Image.Transpose | None":
    """Return how an image with this Exif block is turned upright; None where it is upright already."""
    from shared.formats.pillow import Image  # noqa: PLC0415 - as in clean_file

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return turns.get(orientation(exif))


def _is_heic(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS


def _not_read(data: bytes) -> str:
    if _is_heic(data):
        return (
            "the file is HEIC, which this server cannot read without the package pi-heif; send the image as JPEG or PNG, or ask "
            "the server's operator to install it"
        )
    head = data[: mistaken.HEAD_BYTES]
    if found := mistaken.name(head, "image"):
        return found
    kind = mistaken.binary_kind(head)
    return f"the file is {f'{kind}, ' if kind else ''}not {_KINDS}; save the image as one of them"


def _reader(*, has_threads: bool) -> Reader[CleanImage]:
    limits = Limits(output_bytes=_OUTPUT_BYTES, has_threads=has_threads)
    return Reader(clean_file, TypeAdapter(CleanImage), imports=["shared.formats.pillow"], limits=limits)


_READER = _reader(has_threads=False)
# libde265, which decodes HEIC for libheif 1.23, starts a thread whatever it is told.
_HEIC_READER = _reader(has_threads=True)
