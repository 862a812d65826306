"""Finds image files, and gives each a name of its own in the library."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

MAX_NAME = 200
"""The server's limit on the name of an asset."""
NAME = re.compile(r"[a-zA-Z0-9_-]+")
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".avif", ".heic", ".heif"}
_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_HASH_LENGTH = 16
"""Hexadecimal digits of the content's SHA-256 in a name: enough that two images of a library do not share it."""
_LITTER = {".ds_store", "__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db"}
TEXTS = {".txt", ".caption"}
"""How the names of caption files end."""


class Found(NamedTuple):
    """The image files and caption files of some paths, and what was left out, as notes for the user."""

    images: list[Path]
    texts: list[Path]
    notes: list[str]


def find(paths: Iterable[Path]) -> Found:
    """Return the image files that the paths name, and those in the folders that they name.

    A file is an image by its suffix or by its first bytes; the server says what is wrong with one that is damaged. What macOS,
    Windows and editors leave in a folder is skipped.
    """
    images: dict[Path, Path] = {}
    texts: dict[Path, Path] = {}
    notes: list[str] = []
    for path in paths:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if path.is_dir() and is_litter(file):
                continue
            if file.suffix.lower() in TEXTS:
                texts.setdefault(_place(file), file)
            elif why := _why_not(file, is_named=file is path):
                notes.append(f"{shown(file)}: skipped, {why}")
            else:
                images.setdefault(_place(file), file)
    return Found(list(images.values()), list(texts.values()), notes)


def _place(file: Path) -> Path:
    """Return a path that is the same however the file's folder is named. Two links to a file stay two files."""
    return file.parent.resolve() / file.name


def _why_not(file: Path, *, is_named: bool) -> str:
    """Return why a file is not taken as an image, or an empty text."""
    if file.is_dir():
        return "a folder in a folder: name it as well to take its images"
    if not is_image(file):
        return "no image: neither its name nor its content is an image's"
    return "" if is_named or not file.name.startswith(".") else "a hidden file: name it as well to take it"


def is_litter(file: Path) -> bool:
    """Say whether macOS, Windows or an editor keeps the file for itself."""
    name = file.name
    # macOS keeps a file's attributes in ._NAME, which ends as an image does and is none.
    return name.startswith(("._", ".#", "~$", "#")) or name.endswith("~") or name.lower() in _LITTER


def is_image(file: Path) -> bool:
    """Say whether a file is an image, by its suffix or its first bytes."""
    if file.suffix.lower() in _SUFFIXES:
        return True
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        head = opened.read(12)
    return head.startswith(_STARTS) or (head[:4] == b"RIFF" and head[8:] == b"WEBP")


def shown(path: Path) -> str:
    """Return a path that can be printed: Linux allows names that are not text."""
    return os.fsencode(path).decode(errors="replace")


def content_hash(file: Path) -> str:
    """Return the first digits of the SHA-256 of a file's content, as they stand at the end of its asset's name."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:_HASH_LENGTH]


def plain(text: str) -> str:
    """Return the text as part of a name: letters lose their accents, and what is not ASCII then is left out."""
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-zA-Z0-9_-]+", "-", letters).strip("-")


def default_name(file: Path) -> str:
    """Return a name for the asset of a file, from the file's own name: the hash of its content where nothing is left of that."""
    return plain(file.stem)[:MAX_NAME] or f"file-{content_hash(file)}"


def asset_name(prefix: str, file: Path, digest: str, taken: Collection[str] = ()) -> str:
    """Return a name for the asset of a file: the prefix, the file's own name, and the hash of its content.

    So different files never share a name, whatever is left of their names. Equal ones among `taken` are numbered. The file's
    name is cut where the whole would be too long.
    """
    start = "-".join(filter(None, (prefix, plain(file.stem))))
    number = 1
    while (name := _ending(start, f"-{number}-{digest}" if number > 1 else f"-{digest}")) in taken:
        number += 1
    return name


def is_cut(name: str, prefix: str, file: Path) -> bool:
    """Say whether a name from `asset_name` lacks the end of the file's own name."""
    return not name.startswith("-".join(filter(None, (prefix, plain(file.stem)))))


def _ending(start: str, end: str) -> str:
    return start[: MAX_NAME - len(end)] + end
