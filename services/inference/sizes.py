"""The sizes that a request may ask for: those that OctoAI's server allowed and its first client sends."""

import math

from shared.engines import Engine
from shared.errors import InvalidError

_SDXL = """640x1536 768x1344 832x1216 896x1152 1024x1024 1152x896 1216x832 1344x768 1536x640 384x704 448x576 512x512
512x704 512x768 512x832 576x448 576x768 576x1024 640x640 640x768 704x384 704x1216 768x512 768x576 768x1024 832x512 896x896
1024x768 1216x704"""
_SD15 = """384x704 448x576 512x512 512x704 512x768 512x832 576x448 576x768 576x1024 640x512 640x640 640x768 704x384 704x1216
768x512 768x576 768x1024 832x512 896x896 1024x576 1024x768 1024x1024 1024x1536 1216x704 1536x1024"""
Size = tuple[int, int]


def _parse(table: str) -> frozenset[Size]:
    return frozenset((int(width), int(height)) for width, height in (pair.split("x") for pair in table.split()))


ALLOWED: dict[Engine, frozenset[Size]] = {Engine.SD15: _parse(_SD15), Engine.SDXL: _parse(_SDXL)}
"""The allowed (width, height) in pixels, by engine."""
DEFAULT_PX: dict[Engine, int] = {Engine.SD15: 512, Engine.SDXL: 1024}
"""The side of the square image that is drawn when no size is asked for."""


def choose(engine: Engine, asked: Size | None, init_image: Size | None) -> Size:
    """Return the size of the images: the one asked for, else the one nearest to init_image, else the engine's square.

    Raises InvalidError for a size that is not in the engine's table.
    """
    if asked is not None:
        if asked not in ALLOWED[engine]:
            table = ", ".join(f"{width}x{height}" for width, height in sorted(ALLOWED[engine]))
            msg = f"width, height: {asked[0]}x{asked[1]} is not allowed; choose one of {table}"
            raise InvalidError(msg, loc=("body", "width"))
        return asked
    if init_image is not None:
        return min(sorted(ALLOWED[engine]), key=lambda size: _distance(size, init_image))
    return (DEFAULT_PX[engine], DEFAULT_PX[engine])


def _distance(one: Size, other: Size) -> tuple[float, float]:
    """Return the distance in aspect first, because correcting the aspect crops the image, and in area second."""
    aspect = abs(math.log(one[0] * other[1] / (one[1] * other[0])))
    return round(aspect, 6), abs(math.log(one[0] * one[1] / (other[0] * other[1])))
