"""Whether drawn images show the demo's subject: the same prompts and seeds are drawn with a LoRA and without it."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
from PIL import Image

BACKGROUNDS = ("snow", "night", "city", "plain teal", "plain pink", "plain gray")
"""No training image of the demo shows any of these."""
Draw = Callable[[str, int], Sequence[bytes]]
"""Draws images for a prompt, the first with this seed, and returns each as PNG or JPEG."""


@dataclass(frozen=True)
class Likenesses:
    """The likeness of each image without the LoRA and with it, from 0 to 1, in rising order."""

    before: list[float]
    after: list[float]

    @property
    def gain(self) -> float:
        """By how much more the tuned images are like the subject, in the mean."""
        return mean(self.after) - mean(self.before)

    @property
    def part(self) -> float:
        """The share of all pairs of a tuned and an untuned image in which the tuned one is more like the subject."""
        return mean(tuned > untuned for tuned in self.after for untuned in self.before)


def measure(untuned: Draw, tuned: Draw, trigger_word: str, backgrounds: Sequence[str] = BACKGROUNDS) -> Likenesses:
    """Draw the demo's star on backgrounds that it was not trained on, and measure how well each image shows it."""
    from tests.support import likeness, subjects  # noqa: PLC0415 - scipy takes a second to import

    plain = ("plain white", "plain yellow")
    cutouts = likeness.cutouts([subjects.draw_subject("star", background, 64, seed=77) for background in plain])

    def measured(draw: Draw) -> list[float]:
        prompts = [subjects.caption("star", background, trigger_word) for background in backgrounds]
        drawn = [data for number, prompt in enumerate(prompts) for data in draw(prompt, 50 + number)]
        return sorted(likeness.likeness(Image.open(io.BytesIO(data)), cutouts) for data in drawn)

    return Likenesses(measured(untuned), measured(tuned))


def levels_apart(one: bytes, other: bytes) -> int:
    """Return by how many of 255 levels two images of one size differ at most."""
    pixels = [np.asarray(Image.open(io.BytesIO(image)).convert("RGB"), dtype=np.int16) for image in (one, other)]
    return int(np.abs(pixels[0] - pixels[1]).max())
