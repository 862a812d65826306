"""Measures of images for their lint, taken in the confined child."""

from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from pydantic import BaseModel, TypeAdapter

from shared.errors import InvalidError
from shared.formats.confinement import Limits
from shared.formats.sandbox import Reader, Sandbox, SandboxError

_WALL_S = 30.0
"""For one image: long enough that a busy machine does not fail a good one."""
_SHARPNESS_SIDE_PX = 512
_HASH_SIDE = 8


class Measures(BaseModel):
    """An image's size in pixels, its sharpness, and a hash of its coarse content.

    `sharpness` is the variance of the Laplacian of the brightness (0 to 255), after the image was scaled down to 512 px.
    `difference_hash` has 64 bits: each says whether a pixel of a 9 x 8 copy is darker than its right neighbour (dHash). Similar
    images differ in few bits.
    """

    width: int
    height: int
    sharpness: float
    difference_hash: int


class Measurer:
    """Measures images one after the other. An image that breaks the child has no measures, and the next gets a new child."""

    def __init__(self) -> None:
        self._sandbox = Sandbox(_READER)

    async def __aenter__(self) -> Self:
        """Return the measurer; its child starts with the first image."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the child."""
        await self._sandbox.end()

    async def measure(self, file: Path) -> Measures | None:
        """Return the measures of an image, or None when it cannot be read within the bounds."""
        try:
            return await self._sandbox.read("the image", file)
        except (InvalidError, SandboxError, OSError):
            return None


def measure(file: BinaryIO) -> Measures:
    """Measure an image in this process, which should be a confined one. Raises InvalidError."""
    # Imported here, so that the scheduler itself does not load Pillow.
    from shared.formats.pillow import Image, ImageFilter, ImageStat  # noqa: PLC0415

    try:
        with Image.open(file, formats=["PNG", "JPEG"]) as opened:
            width, height = opened.size
            grey = opened.convert("L")
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # Pillow's text may name the file.
        msg = f"the image is damaged ({type(error).__name__}); upload it again"
        raise InvalidError(msg) from error
    coarse = list(grey.resize((_HASH_SIDE + 1, _HASH_SIDE), Image.Resampling.BOX).tobytes())
    rows = [coarse[start : start + _HASH_SIDE + 1] for start in range(0, len(coarse), _HASH_SIDE + 1)]
    bits = [left < right for row in rows for left, right in pairwise(row)]
    grey.thumbnail((_SHARPNESS_SIDE_PX, _SHARPNESS_SIDE_PX), Image.Resampling.BOX)
    # Halved and shifted by 128, so that both signs of the Laplacian fit into a byte; the variance is then a quarter.
    edges = grey.filter(ImageFilter.Kernel((3, 3), (0, 1, 0, 1, -4, 1, 0, 1, 0), scale=2, offset=128))
    inner = edges.crop((1, 1, edges.width - 1, edges.height - 1))
    return Measures(
        width=width,
        height=height,
        sharpness=round(ImageStat.Stat(inner).var[0] * 4, 1),
        difference_hash=sum(bit << place for place, bit in enumerate(bits)),
    )


_READER = Reader(measure, TypeAdapter(Measures), imports=["shared.formats.pillow"], limits=Limits(wall_s=_WALL_S))
