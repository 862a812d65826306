"""Finds and reads the caption that a text file beside an image holds."""

import codecs
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tunesmith.image_files import TEXTS, shown

MAX_BYTES = 64 * 2**10
"""Far above the server's limit on a caption's length: a larger file is something else."""
MAX_CAPTION_BYTES = 8000
"""The server's limit on a caption, as UTF-8."""
_SAVE = "save it as UTF-8 text"
# UTF-32's mark begins with UTF-16's, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MANY = 0.25
"""The share of bytes beyond ASCII that no text in Windows-1252 has: those languages write mostly with plain letters."""


class CaptionError(ValueError):
    """A caption file cannot be read, or two of them contradict each other. The text names the file and the remedy."""


class Caption(NamedTuple):
    """A caption, and what its reader had to assume about the file (empty for UTF-8 and UTF-16)."""

    text: str
    note: str


def caption_of(image: Path) -> Caption | None:
    """Return the caption of an image; None when no file beside it holds one, or the file is blank.

    The caption of cat.png is in cat.txt, cat.caption or cat.png.txt. Raises CaptionError.
    """
    found = {file: read(file) for file in _beside(image)}
    texts = {caption.text for caption in found.values()}
    if len(texts) > 1:
        msg = f"{', '.join(map(shown, found))}: they hold different captions for {shown(image)}: keep one of them"
        raise CaptionError(msg)
    caption = next(iter(found.values()), None)
    return caption if caption and caption.text else None


def read(file: Path) -> Caption:
    """Return the text of a caption file as one line: UTF-8, UTF-16 or UTF-32 with or without a mark, or Windows-1252.

    Raises CaptionError.
    """
    with file.open("rb") as opened:
        data = opened.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        msg = f"{shown(file)}: a caption file has at most {MAX_BYTES} bytes, and this one has more: shorten it, or move it"
        raise CaptionError(msg)
    text, note = _decoded(file, data)
    # Line breaks and tabs mean nothing to a text encoder, and a byte order mark in the middle is a remnant of joined files.
    text = " ".join(text.replace("\ufeff", "").split())
    control = next((letter for letter in text if unicodedata.category(letter) == "Cc"), None)
    if control is not None:
        msg = f"{shown(file)}: the caption has the control character U+{ord(control):04X}, so the file is not plain text: {_SAVE}"
        raise CaptionError(msg)
    size = len(text.encode())
    if size > MAX_CAPTION_BYTES:
        msg = f"{shown(file)}: the caption has {size} bytes as UTF-8; at most {MAX_CAPTION_BYTES} are allowed: shorten it"
        raise CaptionError(msg)
    return Caption(text, note)


def notes(images: Iterable[Path], texts: Iterable[Path]) -> list[str]:
    """Return notes on the caption files that belong to no image, or to several."""
    images = list(images)
    found: list[str] = []
    for text in texts:
        owners = [shown(image) for image in images if image.parent == text.parent and _belongs(text, image)]
        if not owners:
            found.append(f"{shown(text)}: skipped, no image has this name")
        elif len(owners) > 1:
            found.append(f"{shown(text)}: the caption of {' and '.join(owners)}")
    return found


def _beside(image: Path) -> list[Path]:
    return sorted(
        file for file in image.parent.iterdir() if file.suffix.lower() in TEXTS and _belongs(file, image) and file.is_file()
    )


def _belongs(text: Path, image: Path) -> bool:
    # macOS stores an accent as a letter of its own, and a file's name may have been written elsewhere.
    names = (unicodedata.normalize("NFC", name) for name in (image.stem, image.name))
    return unicodedata.normalize("NFC", text.stem) in names


def _decoded(file: Path, data: bytes) -> tuple[str, str]:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strict(file, data.removeprefix(mark), encoding), ""
    encoding = _encoding_by_zeros(data)
    if encoding:
        return _strict(file, data, encoding), ""
    try:
        return data.decode(), ""
    except UnicodeDecodeError:
        pass
    beyond_ascii = sum(byte > 127 for byte in data)  # noqa: PLR2004 - the last byte of ASCII
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        text = ""
    if not text or beyond_ascii > _MANY * len(data):
        msg = f"{shown(file)}: the caption is neither UTF-8, UTF-16 nor Windows-1252: {_SAVE}"
        raise CaptionError(msg)
    return (
        text,
        f"{shown(file)} is not UTF-8 and was read as Windows-1252; {_SAVE} if the caption is wrong: {text.strip()[:100]!r}",
    )


def _strict(file: Path, data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        msg = f"{shown(file)}: the caption begins as {encoding.upper()}, and is damaged at byte {error.start}: {_SAVE}"
        raise CaptionError(msg) from None


def _encoding_by_zeros(data: bytes) -> str | None:
    """Return the encoding of UTF-16 without a mark: in text of plain letters every second byte is zero."""
    half = len(data) // 2
    if not half or len(data) % 2:
        return None
    first, second = data[::2].count(0), data[1::2].count(0)
    if second > half / 2 and not first:
        return "utf-16-le"
    return "utf-16-be" if first > half / 2 and not second else None
