"""The number of CLIP's tokens in a text, counted without the libraries that the services for models have."""

from functools import cache, lru_cache
from itertools import pairwise

from shared.formats.clip.tokenizer import letters, merges
from shared.formats.clip.words import WORDS, composed

MOST_AT_ONCE = 75
"""CLIP's text encoders read 77 tokens at once, two of which mark the start and the end."""

_LONGEST = 64


def count(text: str) -> int:
    """Return the number of tokens, without those for start and end. Of words above 64 letters it is an estimate."""
    words = WORDS.findall(composed(text).lower())
    # The cost grows with the square of a word's length.
    return sum(_count_word(word[start : start + _LONGEST]) for word in words for start in range(0, len(word), _LONGEST))


@lru_cache(maxsize=20_000)
def _count_word(word: str) -> int:
    """Join a word's bytes pair by pair, the most frequent pair first, and return how many parts are left."""
    parts = [letters()[byte] for byte in word.encode(errors="replace")]
    parts[-1] += "</w>"
    ranks = _ranks()
    while pairs := [(ranks[pair], place) for place, pair in enumerate(pairwise(parts)) if pair in ranks]:
        _, place = min(pairs)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return len(parts)


@cache
def _ranks() -> dict[tuple[str, str], int]:
    return {pair: rank for rank, pair in enumerate(merges())}
