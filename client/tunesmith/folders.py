"""Reads folders of training images: images, captions, and what kohya's names of folders say."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tunesmith import captions, image_files
from tunesmith.errors import TunesmithApiError
from tunesmith.image_files import shown

_KOHYA = re.compile(r"\d+_(\S+)(?: +(\S.*))?")
"""A number of repeats, the trigger word, and the class: `10_sks1 dog`."""
_STEPS_PER_IMAGE, _LEAST_STEPS, _MOST_STEPS = 100, 400, 10_000


class TrainingFolder(NamedTuple):
    """The images of some paths with their captions, what was left out, and the trigger word that a folder's name gives."""

    images: list[Path]
    captions: list[str | None]
    notes: list[str]
    trigger_word: str | None
    subject: str | None

    @property
    def default_steps(self) -> int:
        """The steps for this many images, in the middle of what the guide says."""
        return min(_MOST_STEPS, max(_LEAST_STEPS, _STEPS_PER_IMAGE * len(self.images)))

    def trigger_word_or(self, given: str | None) -> str:
        """Return the trigger word that was given, or that of the folder. Raises TunesmithApiError when there is neither."""
        if word := given or self.trigger_word:
            return word
        msg = "the trigger word is missing: give one, or name the folder like `10_sks1 dog`"
        raise TunesmithApiError(0, "no_trigger_word", msg)

    def tune_name_or(self, folder: Path) -> str:
        """Return a name for the tune: the trigger word and the class, or the folder's name."""
        given = f"{self.trigger_word}-{self.subject}" if self.trigger_word and self.subject else folder.resolve().name
        return image_files.plain(given) or "tune"


def read_folders(paths: Sequence[Path]) -> TrainingFolder:
    """Return the images of the paths and their captions.

    A folder named `10_sks1 dog`, or one that holds such folders, gives the trigger word, and `sks1 dog` as the caption of
    images without a text file. Raises TunesmithApiError when there is no image, when a caption cannot be read, or when the
    names of folders contradict each other.
    """
    paths = [inner for path in paths for inner in _inner(path)]
    named = {path: match for path in paths if path.is_dir() and (match := _KOHYA.fullmatch(path.resolve().name))}
    words = {match[1] for match in named.values()}
    if len(words) > 1:
        msg = f"the folders name several trigger words ({', '.join(sorted(words))}), and a tune has one: start one tune for each"
        raise TunesmithApiError(0, "trigger_words", msg)
    found = image_files.find(paths)
    notes = [*found.notes, *captions.notes(found.images, found.texts)]
    if named:
        notes.append(f"{shown(next(iter(named)))}: the number of repeats is not used: choose the steps instead")
    defaults = {path.resolve(): " ".join(filter(None, match.groups())) for path, match in named.items()}
    texts: list[str | None] = []
    for image in found.images:
        try:
            caption = captions.caption_of(image)
        except captions.CaptionError as error:
            raise TunesmithApiError(0, "caption", str(error)) from error
        if caption and caption.note:
            notes.append(caption.note)
        texts.append(caption.text if caption else defaults.get(image.parent.resolve()))
    if not found.images:
        msg = f"{', '.join(map(shown, paths))}: there is no image: give image files (.png, .jpg, .webp), or folders of such files"
        raise TunesmithApiError(0, "no_images", msg)
    subject = next((match[2] for match in named.values() if match[2]), None)
    return TrainingFolder(found.images, texts, notes, next(iter(words), None), subject)


def _inner(path: Path) -> list[Path]:
    """Return the folders with kohya's names in a folder that has such folders, or the path itself."""
    if not path.is_dir() or _KOHYA.fullmatch(path.resolve().name):
        return [path]
    inner = sorted(child for child in path.iterdir() if child.is_dir() and _KOHYA.fullmatch(child.name))
    has_images = any(child.is_file() and image_files.is_image(child) for child in path.iterdir())
    return [*([path] if has_images or not inner else []), *inner]
