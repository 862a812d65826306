"""Animals and things, each made of parts. A part is a role, which decides its colour, and a polygon in the unit square."""

import math

from deploy.tiny.shapes import SHAPES, Polygon

Part = tuple[str, Polygon]


def oval(x: float, y: float, rx: float, ry: float, *, corners: int = 40) -> Polygon:
    """Return an ellipse as a polygon."""
    return [(x + rx * math.cos(2 * math.pi * i / corners), y + ry * math.sin(2 * math.pi * i / corners)) for i in range(corners)]


def box(left: float, top: float, right: float, bottom: float) -> Polygon:
    """Return a rectangle as a polygon."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _eyes(*points: tuple[float, float]) -> list[Part]:
    return [("eye", oval(x, y, 0.035, 0.045)) for x, y in points]


FIGURES: dict[str, list[Part]] = {name: [("body", polygon) for polygon in polygons] for name, polygons in SHAPES.items()} | {
    "cat": [
        ("dark", [(0.78, 0.95), (0.95, 0.8), (0.98, 0.5), (0.9, 0.45), (0.86, 0.72), (0.7, 0.85)]),
        ("body", oval(0.52, 0.74, 0.26, 0.25)),
        ("body", [(0.22, 0.36), (0.24, 0.02), (0.46, 0.18)]),
        ("body", [(0.58, 0.18), (0.78, 0.02), (0.82, 0.36)]),
        ("body", oval(0.52, 0.34, 0.31, 0.25)),
        *_eyes((0.4, 0.32), (0.64, 0.32)),
        ("nose", [(0.47, 0.41), (0.57, 0.41), (0.52, 0.47)]),
    ],
    "dog": [
        ("body", [(0.72, 0.62), (0.97, 0.42), (0.99, 0.5), (0.82, 0.74)]),
        ("body", oval(0.56, 0.7, 0.33, 0.19)),
        ("body", box(0.28, 0.72, 0.4, 0.99)),
        ("body", box(0.7, 0.72, 0.82, 0.99)),
        ("body", oval(0.3, 0.36, 0.24, 0.22)),
        ("light", oval(0.16, 0.44, 0.15, 0.11)),
        ("dark", oval(0.45, 0.4, 0.09, 0.22)),
        ("eye", oval(0.06, 0.4, 0.05, 0.045)),
        *_eyes((0.27, 0.3)),
    ],
    "bird": [
        ("dark", [(0.7, 0.55), (1.0, 0.5), (0.98, 0.66), (0.74, 0.7)]),
        ("body", oval(0.5, 0.6, 0.32, 0.25)),
        ("body", oval(0.28, 0.34, 0.19, 0.18)),
        ("beak", [(0.12, 0.28), (-0.04, 0.37), (0.12, 0.43)]),
        ("dark", oval(0.56, 0.58, 0.18, 0.13)),
        ("beak", box(0.42, 0.83, 0.46, 0.99)),
        ("beak", box(0.56, 0.83, 0.6, 0.99)),
        *_eyes((0.25, 0.31)),
    ],
    "fish": [
        ("dark", [(0.68, 0.5), (1.0, 0.22), (0.95, 0.5), (1.0, 0.78)]),
        ("dark", [(0.35, 0.3), (0.55, 0.08), (0.66, 0.32)]),
        ("body", oval(0.4, 0.5, 0.38, 0.25)),
        ("white", oval(0.17, 0.44, 0.065, 0.07)),
        *_eyes((0.16, 0.44)),
    ],
    "rabbit": [
        ("body", oval(0.4, 0.2, 0.08, 0.2)),
        ("body", oval(0.62, 0.2, 0.08, 0.2)),
        ("light", oval(0.4, 0.2, 0.035, 0.14)),
        ("light", oval(0.62, 0.2, 0.035, 0.14)),
        ("body", oval(0.51, 0.78, 0.26, 0.22)),
        ("body", oval(0.51, 0.48, 0.22, 0.19)),
        ("white", oval(0.76, 0.86, 0.09, 0.09)),
        *_eyes((0.43, 0.46), (0.59, 0.46)),
        ("nose", oval(0.51, 0.54, 0.03, 0.025)),
    ],
    "car": [
        ("body", [(0.22, 0.48), (0.34, 0.22), (0.68, 0.22), (0.82, 0.48)]),
        ("glass", [(0.3, 0.46), (0.38, 0.28), (0.5, 0.28), (0.5, 0.46)]),
        ("glass", [(0.54, 0.46), (0.54, 0.28), (0.65, 0.28), (0.74, 0.46)]),
        ("body", box(0.0, 0.46, 1.0, 0.72)),
        ("eye", oval(0.24, 0.74, 0.13, 0.13)),
        ("eye", oval(0.76, 0.74, 0.13, 0.13)),
        ("white", oval(0.24, 0.74, 0.05, 0.05)),
        ("white", oval(0.76, 0.74, 0.05, 0.05)),
    ],
    "house": [
        ("body", box(0.12, 0.44, 0.88, 0.98)),
        ("dark", [(0.0, 0.46), (0.5, 0.02), (1.0, 0.46)]),
        ("wood", box(0.42, 0.66, 0.58, 0.98)),
        ("glass", box(0.2, 0.56, 0.34, 0.72)),
        ("glass", box(0.66, 0.56, 0.8, 0.72)),
    ],
    "tree": [
        ("wood", box(0.43, 0.6, 0.57, 1.0)),
        ("body", oval(0.5, 0.28, 0.3, 0.27)),
        ("body", oval(0.28, 0.46, 0.24, 0.2)),
        ("body", oval(0.72, 0.46, 0.24, 0.2)),
    ],
    "flower": [
        ("leaf", box(0.47, 0.5, 0.53, 1.0)),
        ("leaf", oval(0.64, 0.82, 0.13, 0.05)),
        *[
            ("body", oval(0.5 + 0.21 * math.cos(a), 0.34 + 0.21 * math.sin(a), 0.15, 0.15))
            for a in [i * math.pi / 3 for i in range(6)]
        ],
        ("beak", oval(0.5, 0.34, 0.12, 0.12)),
    ],
    "boat": [
        ("wood", box(0.47, 0.06, 0.52, 0.66)),
        ("white", [(0.54, 0.06), (0.94, 0.6), (0.54, 0.6)]),
        ("body", [(0.02, 0.66), (0.98, 0.66), (0.8, 0.94), (0.2, 0.94)]),
        ("light", [(0.45, 0.16), (0.14, 0.6), (0.45, 0.6)]),
    ],
    "mushroom": [
        ("cream", [(0.38, 0.5), (0.62, 0.5), (0.68, 0.98), (0.32, 0.98)]),
        (
            "body",
            [(0.02, 0.56)]
            + [(0.5 + 0.48 * math.cos(a), 0.56 + 0.5 * math.sin(a)) for a in [math.pi + math.pi * i / 30 for i in range(31)]],
        ),
        ("white", oval(0.34, 0.34, 0.07, 0.07)),
        ("white", oval(0.6, 0.24, 0.08, 0.08)),
        ("white", oval(0.76, 0.44, 0.06, 0.06)),
    ],
    "balloon": [
        ("string", box(0.49, 0.7, 0.515, 1.0)),
        ("body", oval(0.5, 0.36, 0.32, 0.36)),
        ("body", [(0.45, 0.76), (0.55, 0.76), (0.5, 0.69)]),
        ("light", oval(0.38, 0.22, 0.07, 0.1)),
    ],
}
"""Every figure of the image set, by its word in captions."""
