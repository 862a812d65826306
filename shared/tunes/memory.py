"""What of a training fits a GPU, as the trainer decides it and the scheduler estimates it."""

from shared.engines import Engine

SMALL_PX = 256
"""A checkpoint with a smaller native size is small: it has other defaults and other trained layers, and a CPU can train it."""
_ACTIVATIONS_GIB = {Engine.SD15: (0.7, 512), Engine.SDXL: (5.5, 1024)}
"""GiB that one image keeps for the backward pass, and the side in pixels of the square that was measured."""


def activation_bytes(engine: Engine, images: int, resolution_px: int) -> float:
    """Return the bytes of activations that a step keeps for its backward pass, class images counted among the images."""
    gib, side_px = _ACTIVATIONS_GIB[engine]
    return gib * images * (resolution_px / side_px) ** 2 * 2**30
