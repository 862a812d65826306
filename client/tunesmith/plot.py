"""A curve in the letters of a terminal: each has 2 by 4 dots, as Braille does."""

from collections.abc import Sequence
from itertools import pairwise

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BLANK = 0x2800


def plot(values: Sequence[float | None], columns: int, rows: int) -> list[str]:
    """Return the curve as lines, the highest value in the first. A column shows the mean of the values that fall on it."""
    points = _reduced([value for value in values if value is not None], 2 * columns)
    if not points:
        return [""] * rows
    low, high = min(points), max(points)
    heights = [round((high - point) / ((high - low) or 1) * (4 * rows - 1)) for point in points]
    cells = [[_BLANK] * ((len(points) + 1) // 2) for _ in range(rows)]
    last = heights[0]
    for x, height in enumerate(heights):
        # A line without gaps: the dots between a point and the one before it.
        for y in range(min(height, last), max(height, last) + 1):
            cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
        last = height
    lines = ["".join(map(chr, row)) for row in cells]
    lines[0] += f" {high:.4g}"
    lines[-1] += f" {low:.4g}"
    return lines


def _reduced(values: Sequence[float], most: int) -> list[float]:
    if len(values) <= most:
        return list(values)
    edges = [number * len(values) // most for number in range(most + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
