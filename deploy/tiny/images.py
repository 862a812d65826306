"""The set of images with captions that the small checkpoints learn from. It depends on its seed alone."""

import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from deploy.tiny.draw import COLOURS, SCENES, TEXTURES, Drawing, draw
from deploy.tiny.figures import FIGURES

SIDE_PX = 64
COUNT, SEED = 30_000, 0
"""The number of images in the set, and its seed."""
HELD_OUT = frozenset({("star", "purple", "striped"), ("rabbit", "teal", "spotted"), ("mushroom", "blue", "checkered")})
"""Figure, colour and texture of the subjects that LoRAs are tested with. The set must not contain them."""


def pick(rng: random.Random) -> Drawing:
    """Choose at random what an image shows: half of the figures are plain, 60 % of the backgrounds are scenes."""
    while True:
        figure, colour = rng.choice(list(FIGURES)), rng.choice(list(COLOURS))
        texture = "plain" if rng.random() < 0.5 else rng.choice(TEXTURES[1:])
        background = rng.choice(SCENES) if rng.random() < 0.6 else f"plain {rng.choice(list(COLOURS))}"
        if background != f"plain {colour}" and (figure, colour, texture) not in HELD_OUT:
            return Drawing(figure, colour, texture, background)


def labels(drawing: Drawing) -> list[int]:
    """Return figure, colour, texture and background as class numbers."""
    backgrounds = [*SCENES, *(f"plain {name}" for name in COLOURS)]
    return [
        list(FIGURES).index(drawing.figure),
        list(COLOURS).index(drawing.colour),
        TEXTURES.index(drawing.texture),
        backgrounds.index(drawing.background),
    ]


CLASSES = (len(FIGURES), len(COLOURS), len(TEXTURES), len(SCENES) + len(COLOURS))


def shown(seed: int = SEED, count: int = COUNT) -> set[Drawing]:
    """Return what the images of the set show, without drawing them."""
    return {pick(_rng(seed, index)) for index in range(count)}


def _rng(seed: int, index: int) -> random.Random:
    return random.Random(f"{seed}/{index}")


def _chunk(span: tuple[int, int, int]) -> tuple[np.ndarray, list[str], list[list[int]]]:
    seed, start, stop = span
    pixels, captions, classes = [], [], []
    for index in range(start, stop):
        rng = _rng(seed, index)
        drawing = pick(rng)
        pixels.append(np.asarray(draw(drawing, SIDE_PX, rng)))
        captions.append(drawing.caption(rng, careless=True))
        classes.append(labels(drawing))
    return np.stack(pixels), captions, classes


def build(folder: Path, count: int = COUNT, seed: int = SEED) -> None:
    """Write pixels.npy (count, 64, 64, 3) uint8, captions.txt and labels.npy (count, 4)."""
    folder.mkdir(parents=True, exist_ok=True)
    spans = [(seed, i, min(i + 500, count)) for i in range(0, count, 500)]
    with ProcessPoolExecutor(2) as pool:
        parts = list(pool.map(_chunk, spans))
    np.save(folder / "pixels.npy", np.concatenate([p[0] for p in parts]))
    np.save(folder / "labels.npy", np.array([row for p in parts for row in p[2]]))
    (folder / "captions.txt").write_text("\n".join(c for p in parts for c in p[1]))
