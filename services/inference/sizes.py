"""The sizes that may be asked for: what OctoAI's server allowed and what its first client lets through."""

from shared.engines import Engine

_SDXL = """640x1536 768x1344 832x1216 896x1152 1024x1024 1152x896 1216x832 1344x768 1536x640 384x704 448x576 512x512
512x704 512x768 512x832 576x448 576x768 576x1024 640x640 640x768 704x384 704x1216 768x512 768x576 768x1024 832x512 896x896
1024x768 1216x704"""
_SD15 = """384x704 448x576 512x512 512x704 512x768 512x832 576x448 576x768 576x1024 640x512 640x640 640x768 704x384 704x1216
768x512 768x576 768x1024 832x512 896x896 1024x576 1024x768 1024x1024 1024x1536 1216x704 1536x1024"""


def _parse(table: str) -> frozenset[tuple[int, int]]:
    return frozenset((int(width), int(height)) for width, height in (pair.split("x") for pair in table.split()))


ALLOWED: dict[Engine, frozenset[tuple[int, int]]] = {Engine.SD15: _parse(_SD15), Engine.SDXL: _parse(_SDXL)}
"""(width, height) in pixels, by engine."""
DEFAULT_PX: dict[Engine, int] = {Engine.SD15: 512, Engine.SDXL: 1024}
"""The side of the square picture that is drawn when no size is asked for."""
