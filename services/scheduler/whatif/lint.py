"""Advice about training images, captions and steps. A request is not refused for it."""

from collections.abc import Sequence
from itertools import combinations

from services.scheduler.answers import caption_warnings
from services.scheduler.schemas import File, Warning_
from services.scheduler.whatif.measures import Measures
from shared.formats.clip import tokens
from shared.formats.image import MIN_SIDE_PX

BLURRED_BELOW = 60.0
"""An image is blurred if its sharpness is below this. The sample images have 318 to 502, and about 1 after a blur by a 64th of
their width."""
ALIKE_BITS = 5
"""Two images are near-duplicates if their hashes differ in at most this many of 64 bits."""
LONGEST_ASPECT = 2.0
"""The training buckets go to 2:1; a longer image is cropped at its ends."""
FEW_IMAGES = 4
STEPS_PER_IMAGE = (75, 150)
"""The usual range for a subject: fewer steps underfit, more overfit."""


def lint_images(files: Sequence[File], measured: dict[str, Measures | None], resolution_px: int) -> list[Warning_]:
    """Return advice about images by their measures, in the order of the files. An image without measures could not be read."""
    found: list[Warning_] = []
    for file_id in dict.fromkeys(file.file_id for file in files):
        if file_id in measured:
            found += _lint_one(file_id, measured[file_id], resolution_px)
    read = [(file_id, one) for file_id, one in measured.items() if one is not None]
    for (first, one), (second, other) in combinations(read, 2):
        bits = (one.difference_hash ^ other.difference_hash).bit_count()
        if bits <= ALIKE_BITS:
            text = f"the image looks like {first} ({bits} of 64 bits of their hashes differ); another view teaches a tune more"
            found.append(Warning_(code="near_duplicate", message=text, file_id=second))
    return found


def lint_request(files: Sequence[File], trigger_word: str, steps: int) -> list[Warning_]:
    """Return advice about captions, the number of images, and steps."""
    captions = [(file.file_id, file.caption_or(trigger_word)) for file in files]
    found = caption_warnings(captions, trigger_word)
    found += [
        Warning_(
            code="long_caption",
            message=f"the caption has {length} tokens; a text encoder reads {tokens.MOST_AT_ONCE} at once, so it is read in "
            "parts, and later parts count less",
            file_id=file_id,
        )
        for file_id, caption in captions
        if (length := tokens.count(caption)) > tokens.MOST_AT_ONCE
    ]
    ids = [file.file_id for file in files]
    found += [
        Warning_(code="repeated_file", message="the image is in the list, and in training, more than once", file_id=file_id)
        for file_id in dict.fromkeys(ids)
        if ids.count(file_id) > 1
    ]
    if len(files) < FEW_IMAGES:
        text = f"{len(files)} images are few: the LoRA may only learn to repeat them; 5 to 20 varied images are usual"
        found.append(Warning_(code="few_pictures", message=text))
    fewest, most = (number * len(files) for number in STEPS_PER_IMAGE)
    if not fewest <= steps <= most:
        text = f"{steps} steps for {len(files)} images are {steps / len(files):.0f} each; {fewest} to {most} in all are usual"
        found.append(Warning_(code="few_steps" if steps < fewest else "many_steps", message=text))
    return found


def _lint_one(file_id: str, one: Measures | None, resolution_px: int) -> list[Warning_]:
    if one is None:
        return [Warning_(code="unreadable", message="the image could not be read; leave it out", file_id=file_id)]
    found: list[Warning_] = []
    shorter, longer = sorted((one.width, one.height))
    if shorter < resolution_px:
        text = f"the image is {one.width} x {one.height} px, below the {resolution_px} px of training, so it will be enlarged"
        found.append(Warning_(code="too_small", message=text, file_id=file_id))
    if longer > shorter * LONGEST_ASPECT:
        text = f"the image is {one.width} x {one.height} px, longer than {LONGEST_ASPECT:g}:1, so its ends will be cut off"
        found.append(Warning_(code="extreme_aspect", message=text, file_id=file_id))
    if one.sharpness < BLURRED_BELOW and shorter >= MIN_SIDE_PX:
        text = f"the image is blurred or has hardly any detail (sharpness {one.sharpness:g}, below {BLURRED_BELOW:g})"
        found.append(Warning_(code="blurred", message=text, file_id=file_id))
    return found
