"""Outlines of shapes as polygons in the unit square. y grows downwards."""

import math

Point = tuple[float, float]
Polygon = list[Point]


def _regular(corners: int, turn: float = -math.pi / 2) -> Polygon:
    return [
        (0.5 + 0.48 * math.cos(turn + 2 * math.pi * i / corners), 0.5 + 0.48 * math.sin(turn + 2 * math.pi * i / corners))
        for i in range(corners)
    ]


def _star(points: int = 5, inner: float = 0.2) -> Polygon:
    corners = []
    for i in range(points * 2):
        radius = 0.5 if i % 2 == 0 else inner
        angle = -math.pi / 2 + math.pi * i / points
        corners.append((0.5 + radius * math.cos(angle), 0.52 + radius * math.sin(angle)))
    return corners


def _heart() -> Polygon:
    corners = []
    for i in range(60):
        t = 2 * math.pi * i / 60
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        corners.append((0.5 + x / 34, 0.47 - y / 34))
    return corners


def _blob(*shapes: tuple[float, float, float, float]) -> list[Polygon]:
    """Return ellipses (centre x, centre y, radius x, radius y) as polygons."""
    return [
        [(x + rx * math.cos(2 * math.pi * i / 40), y + ry * math.sin(2 * math.pi * i / 40)) for i in range(40)]
        for x, y, rx, ry in shapes
    ]


def _angles(start: float, sweep: float) -> list[float]:
    """Return 41 angles of an arc; both are in units of pi."""
    return [math.pi * (start + sweep * i / 40) for i in range(41)]


SHAPES: dict[str, list[Polygon]] = {
    "circle": _blob((0.5, 0.5, 0.48, 0.48)),
    "square": [[(0.06, 0.06), (0.94, 0.06), (0.94, 0.94), (0.06, 0.94)]],
    "triangle": [_regular(3)],
    "star": [_star()],
    "heart": [_heart()],
    "diamond": [[(0.5, 0.0), (0.9, 0.5), (0.5, 1.0), (0.1, 0.5)]],
    "hexagon": [_regular(6, 0.0)],
    "cross": [
        [
            *((0.34, 0.0), (0.66, 0.0), (0.66, 0.34), (1.0, 0.34), (1.0, 0.66), (0.66, 0.66)),
            *((0.66, 1.0), (0.34, 1.0), (0.34, 0.66), (0.0, 0.66), (0.0, 0.34), (0.34, 0.34)),
        ]
    ],
    "moon": [
        [
            *((0.5 + 0.48 * math.cos(a), 0.5 + 0.48 * math.sin(a)) for a in _angles(0.3, 1.4)),
            *((0.72 + 0.42 * math.cos(a), 0.5 + 0.39 * math.sin(a)) for a in _angles(1.68, -1.36)),
        ]
    ],
}
"""Every shape, as polygons."""
