"""The captioned picture set that the tiny checkpoints learn from; a pure function of its seed."""

import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from deploy.tiny.draw import COLOURS, SCENES, TEXTURES, Picture, draw
from deploy.tiny.figures import FIGURES

SIDE_PX = 64
COUNT, SEED = 30_000, 0
"""How many pictures the set has, and the seed that they are drawn from."""
HELD_OUT = frozenset({("star", "purple", "striped"), ("rabbit", "teal", "spotted"), ("mushroom", "blue", "checkered")})
"""Figure, colour and texture of the subjects that LoRAs are tried on: the base must never have seen them."""


def pick(rng: random.Random) -> Picture:
    """Draw what a picture shows: half of the figures are plain, half of the grounds are scenes."""
    while True:
        figure, colour = rng.choice(list(FIGURES)), rng.choice(list(COLOURS))
        texture = "plain" if rng.random() < 0.5 else rng.choice(TEXTURES[1:])
        ground = rng.choice(SCENES) if rng.random() < 0.6 else f"plain {rng.choice(list(COLOURS))}"
        if ground != f"plain {colour}" and (figure, colour, texture) not in HELD_OUT:
            return Picture(figure, colour, texture, ground)


def labels(picture: Picture) -> list[int]:
    """Return figure, colour, texture and ground as class numbers."""
    grounds = [*SCENES, *(f"plain {name}" for name in COLOURS)]
    return [
        list(FIGURES).index(picture.figure),
        list(COLOURS).index(picture.colour),
        TEXTURES.index(picture.texture),
        grounds.index(picture.ground),
    ]


CLASSES = (len(FIGURES), len(COLOURS), len(TEXTURES), len(SCENES) + len(COLOURS))


def shown(seed: int = SEED, count: int = COUNT) -> set[Picture]:
    """Return what the pictures of the set show, without drawing them."""
    return {pick(_dice(seed, index)) for index in range(count)}


def _dice(seed: int, index: int) -> random.Random:
    return random.Random(f"{seed}/{index}")


def _chunk(span: tuple[int, int, int]) -> tuple[np.ndarray, list[str], list[list[int]]]:
    seed, start, stop = span
    pixels, captions, classes = [], [], []
    for index in range(start, stop):
        rng = _dice(seed, index)
        picture = pick(rng)
        pixels.append(np.asarray(draw(picture, SIDE_PX, rng)))
        captions.append(picture.caption(rng, careless=True))
        classes.append(labels(picture))
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
