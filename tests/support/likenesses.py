"""Whether drawn pictures show the demo's subject: the same prompts and seeds are drawn with a LoRA and without it."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

from PIL import Image

GROUNDS = ("snow", "night", "city", "plain teal", "plain pink", "plain gray")
"""No training image of the demo shows any of these."""
Draw = Callable[[str, int], Sequence[bytes]]
"""Draws pictures for a prompt, the first with this seed; returns each as PNG or JPEG."""


@dataclass(frozen=True)
class Likenesses:
    """The likeness of each picture without the LoRA and with it, from 0 to 1, in rising order."""

    before: list[float]
    after: list[float]

    @property
    def gain(self) -> float:
        """By how much the tuned pictures are more like the subject in the mean."""
        return mean(self.after) - mean(self.before)

    @property
    def part(self) -> float:
        """In which part of all pairs of a tuned and an untuned picture the tuned one is more like the subject."""
        return mean(tuned > untuned for tuned in self.after for untuned in self.before)


def measure(untuned: Draw, tuned: Draw, trigger_word: str, grounds: Sequence[str] = GROUNDS) -> Likenesses:
    """Draw the demo's star on grounds that it was not trained on, and measure how much of it is to be seen."""
    from tests.support import likeness, subjects  # noqa: PLC0415 - scipy takes a second to import

    cutouts = likeness.cutouts([subjects.draw_subject("star", ground, 64, seed=77) for ground in ("plain white", "plain yellow")])

    def measured(draw: Draw) -> list[float]:
        prompts = [subjects.caption("star", ground, trigger_word) for ground in grounds]
        drawn = [data for number, prompt in enumerate(prompts) for data in draw(prompt, 50 + number)]
        return sorted(likeness.likeness(Image.open(io.BytesIO(data)), cutouts) for data in drawn)

    return Likenesses(measured(untuned), measured(tuned))
