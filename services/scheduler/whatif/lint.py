"""What is probably wrong with a set of training pictures. Advice: none of it is refused."""

from collections.abc import Sequence
from itertools import combinations

from services.scheduler.answers import caption_warnings
from services.scheduler.schemas import File, Warning_
from services.scheduler.whatif.measures import Measures
from shared.formats.image import MIN_SIDE_PX

BLURRED_BELOW = 60.0
"""Sharpness below this is blurred: the sample pictures have 318 to 502, and about 1 when they are blurred by a 64th of their
width."""
ALIKE_BITS = 5
"""Pictures whose hashes differ in at most so many of 64 bits are near-duplicates."""
LONGEST_ASPECT = 2.0
"""The training buckets go to 2:1; what is longer loses its ends."""
FEW_PICTURES = 4
STEPS_PER_PICTURE = (75, 150)
"""What a subject usually takes; fewer underfit, more overfit."""


def lint_pictures(files: Sequence[File], measured: dict[str, Measures | None], resolution_px: int) -> list[Warning_]:
    """Judge pictures by their measures; None says that a picture could not be read. The order is the files'."""
    found: list[Warning_] = []
    for file_id in dict.fromkeys(file.file_id for file in files):
        if file_id in measured:
            found += _lint_one(file_id, measured[file_id], resolution_px)
    read = [(file_id, one) for file_id, one in measured.items() if one is not None]
    for (first, one), (second, other) in combinations(read, 2):
        bits = (one.difference_hash ^ other.difference_hash).bit_count()
        if bits <= ALIKE_BITS:
            text = f"it looks like {first} ({bits} of 64 bits of their hashes differ); a tune learns more from another view"
            found.append(Warning_(code="near_duplicate", message=text, file_id=second))
    return found


def lint_request(files: Sequence[File], trigger_word: str, steps: int) -> list[Warning_]:
    """Judge captions and numbers."""
    said = ((file.file_id, (file.caption or "").strip() or trigger_word) for file in files)
    found = caption_warnings(said, trigger_word)
    ids = [file.file_id for file in files]
    found += [
        Warning_(code="repeated_file", message="it is in the list more than once, and counts as often", file_id=file_id)
        for file_id in dict.fromkeys(ids)
        if ids.count(file_id) > 1
    ]
    if len(files) < FEW_PICTURES:
        text = f"{len(files)} pictures are few: the LoRA may only learn to repeat them; 5 to 20 varied ones are usual"
        found.append(Warning_(code="few_pictures", message=text))
    fewest, most = (number * len(files) for number in STEPS_PER_PICTURE)
    if not fewest <= steps <= most:
        text = f"{steps} steps for {len(files)} pictures are {steps / len(files):.0f} each; {fewest} to {most} in all are usual"
        found.append(Warning_(code="few_steps" if steps < fewest else "many_steps", message=text))
    return found


def _lint_one(file_id: str, one: Measures | None, resolution_px: int) -> list[Warning_]:
    if one is None:
        return [Warning_(code="unreadable", message="it could not be read", file_id=file_id)]
    found: list[Warning_] = []
    shorter, longer = sorted((one.width, one.height))
    if shorter < resolution_px:
        text = f"it is {one.width} x {one.height} px, less than the {resolution_px} px that it is trained at: it will be enlarged"
        found.append(Warning_(code="too_small", message=text, file_id=file_id))
    if longer > shorter * LONGEST_ASPECT:
        text = f"it is {one.width} x {one.height} px, longer than {LONGEST_ASPECT:g}:1: its ends will be cut off"
        found.append(Warning_(code="extreme_aspect", message=text, file_id=file_id))
    if one.sharpness < BLURRED_BELOW and shorter >= MIN_SIDE_PX:
        text = f"it is blurred, or has hardly any detail (sharpness {one.sharpness:g}, below {BLURRED_BELOW:g})"
        found.append(Warning_(code="blurred", message=text, file_id=file_id))
    return found
