"""The sizes at which images are trained, in a few aspect ratios: no image is distorted, padded or much enlarged."""

from math import log, sqrt

MAX_ENLARGEMENT = 1.25
"""An image is trained in a smaller bucket rather than enlarged by more: enlarging adds blur, and the tune would learn it."""
LONGEST_ASPECT = 2.0
"""A longer image is cropped at its ends."""
_RATIOS = (1, 4 / 5, 5 / 4, 3 / 4, 4 / 3, 2 / 3, 3 / 2, 9 / 16, 16 / 9, 1 / 2, 2)
"""Width by height."""
_LEVELS = 16


def bucket(width: int, height: int, resolution_px: int, divisor_px: int) -> tuple[int, int]:
    """Return width and height of the bucket that an image of this size is trained in; `divisor_px` divides both.

    A bucket has about `resolution_px` squared pixels. An image that would have to be enlarged by more than `MAX_ENLARGEMENT` gets
    one of 15/16, 14/16, ... 1/16 of the resolution instead: few levels, so that small images of one size share a bucket.
    """
    found = (divisor_px, divisor_px)
    for level in range(_LEVELS, 0, -1):
        found = _nearest(width / height, resolution_px * level / _LEVELS, divisor_px)
        if max(found[0] / width, found[1] / height) <= MAX_ENLARGEMENT:
            break
    return found


def _nearest(aspect: float, resolution_px: float, divisor_px: int) -> tuple[int, int]:
    sizes = [
        (_rounded(resolution_px * sqrt(ratio), divisor_px), _rounded(resolution_px / sqrt(ratio), divisor_px))
        for ratio in _RATIOS
    ]
    # Of sizes that became equal by rounding, the first counts.
    return min(sizes, key=lambda size: abs(log(size[0] / size[1] / aspect)))


def _rounded(side_px: float, divisor_px: int) -> int:
    return max(divisor_px, round(side_px / divisor_px) * divisor_px)
