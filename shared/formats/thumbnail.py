"""Thumbnails of images, made in the confined child."""

from io import BytesIO
from typing import BinaryIO

from pydantic import BaseModel, TypeAdapter

from shared.formats.confinement import Limits
from shared.formats.sandbox import Reader

EDGE_PX = 384
"""Twice the width of a cell in a grid, for screens with two pixels a dot."""
_QUALITY = 80
_OUTPUT_BYTES = 2**20


class Thumbnail(BaseModel):
    """The size of a thumbnail in pixels."""

    width: int
    height: int


def thumbnail_file(source: BinaryIO, target: BinaryIO) -> Thumbnail:
    """Write a WebP of a clean copy, with a longest edge of 384 px at most. Runs in the confined child."""
    # Here, so that a service that imports this module does not pay for Pillow.
    from shared.formats.pillow import Image  # noqa: PLC0415

    with Image.open(BytesIO(source.read()), formats=["PNG", "JPEG"]) as image:
        image.thumbnail((EDGE_PX, EDGE_PX))
        image.convert("RGB").save(target, "WEBP", quality=_QUALITY)
        return Thumbnail(width=image.width, height=image.height)


READER = Reader(
    thumbnail_file,
    TypeAdapter(Thumbnail),
    imports=["shared.formats.pillow"],
    limits=Limits(output_bytes=_OUTPUT_BYTES),
)
