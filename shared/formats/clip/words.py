"""Words of a text as CLIP's tokenizer separates them: case and Unicode's composed forms make no difference."""

import re
import unicodedata

_CONTRACTION = r"'(?:s|t|re|ve|m|ll|d)"
_LETTERS_OR_DIGIT = r"[^\W\d_]+|\d"
WORDS = re.compile(rf"{_CONTRACTION}|{_LETTERS_OR_DIGIT}|(?:[^\w\s]|_)+", re.IGNORECASE)
"""CLIP's own pattern: letters together, each digit alone, punctuation together."""
_SINGLE = re.compile(rf"{_CONTRACTION}|{_LETTERS_OR_DIGIT}|\S", re.IGNORECASE)
"""The same with punctuation one by one: otherwise `<sks>` would not be found in `<sks>, red`."""


def composed(text: str) -> str:
    """Return the text in Unicode's composed form with single spaces, as CLIP's tokenizer reads it before it lower-cases it."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def find(text: str, phrase: str) -> list[tuple[int, int]]:
    """Return where a composed text contains the phrase as words of their own, as (start, end) without overlaps.

    `sks1` is found in `a SKS1 dog` and `sks1's dog`, since the tokenizer makes the same tokens of them, but not in `sks12`.
    """
    wanted = [found.lower() for found in _SINGLE.findall(composed(phrase))]
    words = list(_SINGLE.finditer(text))
    lower = [word[0].lower() for word in words]
    spans: list[tuple[int, int]] = []
    if not wanted:
        return spans
    for first in range(len(words) - len(wanted) + 1):
        if lower[first : first + len(wanted)] != wanted:
            continue
        start, end = words[first].start(), words[first + len(wanted) - 1].end()
        if not (_joined(text, start) or _joined(text, end)) and (not spans or spans[-1][1] <= start):
            spans.append((start, end))
    return spans


def contains(text: str, phrase: str) -> bool:
    """Return whether the text contains the phrase as words of their own."""
    return bool(find(composed(text), phrase))


def _joined(text: str, place: int) -> bool:
    """Return whether letters or digits stand on both sides of the place."""
    return 0 < place < len(text) and text[place - 1].isalnum() and text[place].isalnum()
