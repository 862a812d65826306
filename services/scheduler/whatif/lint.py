"""Advice about training images, captions and steps. A request is not refused for it."""

from collections.abc import Sequence
from itertools import combinations
from math import ceil

from services.scheduler.answers import caption_warnings
from services.scheduler.schemas import Details, File, Warning_
from services.scheduler.whatif.measures import Measures
from shared.formats.clip import tokens
from shared.formats.clip.words import contains
from shared.formats.image import MIN_SIDE_PX
from shared.tunes.buckets import LONGEST_ASPECT, MAX_ENLARGEMENT, bucket

BLURRED_BELOW = 60.0
"""An image is blurred if its sharpness is below this. The sample images have 318 to 502, and about 1 after a blur by a 64th of
their width."""
ALIKE_BITS = 5
"""Two images are near-duplicates if their hashes differ in at most this many of 64 bits."""
FEW_IMAGES = 4
VIEWS_PER_IMAGE = (40, 200)
"""The usual range for a subject: fewer views underfit, more overfit. 800 views of 5 to 20 images are inside it."""


def lint_images(
    files: Sequence[File], measured: dict[str, Measures | None], resolution_px: int, divisor_px: int
) -> list[Warning_]:
    """Return advice about images by their measures, in the order of the files. An image without measures could not be read."""
    found: list[Warning_] = []
    for file_id in dict.fromkeys(file.file_id for file in files):
        if file_id in measured:
            found += _lint_one(file_id, measured[file_id], resolution_px, divisor_px)
    read = [(file_id, one) for file_id, one in measured.items() if one is not None]
    for (first, one), (second, other) in combinations(read, 2):
        bits = (one.difference_hash ^ other.difference_hash).bit_count()
        if bits <= ALIKE_BITS:
            text = f"the image looks like {first} ({bits} of 64 bits of their hashes differ); another view teaches a tune more"
            found.append(Warning_(code="near_duplicate", message=text, file_id=second))
    return found


def lint_request(details: Details, batch_size: int) -> list[Warning_]:
    """Return advice about captions, the number of images, and steps."""
    files, trigger_word = details.files, details.trigger_word
    captions = [(file.file_id, file.caption_or(trigger_word)) for file in files]
    found = caption_warnings([(file.file_id, file.caption_or(trigger_word)) for file in details.subjects], trigger_word)
    found += [
        Warning_(
            code="regularization_with_trigger_word",
            message=f"the caption of a regularization image contains the trigger word {trigger_word!r}; leave the word out, or "
            "the tune learns it from images that do not show the subject",
            file_id=file.file_id,
        )
        for file in files
        if file.regularization and contains(file.caption_or(trigger_word), trigger_word)
    ]
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
    count = len(details.subjects)
    if count < FEW_IMAGES:
        text = f"{count} images are few: the LoRA may only learn to repeat them; 5 to 20 varied images are usual"
        found.append(Warning_(code="few_pictures", message=text))
    views = details.steps * batch_size / count
    fewest, most = (ceil(number * count / batch_size) for number in VIEWS_PER_IMAGE)
    if not fewest <= details.steps <= most:
        text = (
            f"{details.steps} steps of {batch_size} show each of {count} images {views:.0f} times; {VIEWS_PER_IMAGE[0]} to "
            f"{VIEWS_PER_IMAGE[1]} times are usual, which are {fewest} to {most} steps"
        )
        found.append(Warning_(code="few_steps" if details.steps < fewest else "many_steps", message=text))
    return found


def _lint_one(file_id: str, one: Measures | None, resolution_px: int, divisor_px: int) -> list[Warning_]:
    if one is None:
        return [Warning_(code="unreadable", message="the image could not be read; leave it out", file_id=file_id)]
    found: list[Warning_] = []
    shorter, longer = sorted((one.width, one.height))
    full, own = bucket(longer * 100, shorter * 100, resolution_px, divisor_px), bucket(longer, shorter, resolution_px, divisor_px)
    if own != full:
        text = (
            f"the image is {one.width} x {one.height} px, too small for the {resolution_px} px of training; an image is enlarged "
            f"at most {MAX_ENLARGEMENT:g} times, so it is trained at about {own[0]} x {own[1]} px and teaches less detail"
        )
        found.append(Warning_(code="too_small", message=text, file_id=file_id))
    if longer > shorter * LONGEST_ASPECT:
        text = f"the image is {one.width} x {one.height} px, longer than {LONGEST_ASPECT:g}:1, so its ends will be cut off"
        found.append(Warning_(code="extreme_aspect", message=text, file_id=file_id))
    if one.sharpness < BLURRED_BELOW and shorter >= MIN_SIDE_PX:
        text = f"the image is blurred or has hardly any detail (sharpness {one.sharpness:g}, below {BLURRED_BELOW:g})"
        found.append(Warning_(code="blurred", message=text, file_id=file_id))
    return found
