"""Prompts as tokens, with weights, words that stand for a textual inversion, and texts of any length.

Text encoders take 77 tokens at a time. A longer prompt is cut into chunks of that length. Each chunk is encoded alone, and the
UNet's cross-attention sees the chunks one after the other.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from shared.formats.clip.emphasis import Weighted

_ANY_TOKEN = 0


@dataclass(frozen=True)
class Chunk:
    """One input of a text encoder: as many tokens as it takes, including begin, end and padding."""

    ids: list[int]
    weights: list[float]
    vectors: dict[int, torch.Tensor] = field(default_factory=dict)
    """The vectors of textual inversions by the position whose token embedding they replace."""

    @property
    def is_weighted(self) -> bool:
        """Whether any token has a weight other than 1."""
        return any(weight != 1.0 for weight in self.weights)


class _Token(NamedTuple):
    number: int
    weight: float
    vector: torch.Tensor | None = None


def chunks(text: Weighted, tokenizer: Any, length: int, vectors: Mapping[str, torch.Tensor]) -> list[Chunk]:
    """Return the text's chunks of `length` tokens, at least one.

    `vectors` maps each word that stands for a textual inversion to its vectors (number, width) for this encoder.
    """
    room = length - 2
    made: list[Chunk] = []
    for section in text.sections:
        tokens: list[_Token] = []
        for group in _groups(section, tokenizer, vectors):
            # The vectors of a word work together, so they stay in one chunk where they fit into one.
            if len(tokens) + len(group) > room and len(group) <= room:
                made.append(_chunk(tokens, tokenizer, length))
                tokens = []
            tokens += group
            while len(tokens) > room:
                made.append(_chunk(tokens[:room], tokenizer, length))
                tokens = tokens[room:]
        if tokens:
            made.append(_chunk(tokens, tokenizer, length))
    return made or [empty(tokenizer, length)]


def empty(tokenizer: Any, length: int) -> Chunk:
    """Return the chunk of an empty text."""
    return _chunk([], tokenizer, length)


def _groups(section: Sequence[tuple[str, float]], tokenizer: Any, vectors: Mapping[str, torch.Tensor]) -> list[list[_Token]]:
    """Return the tokens of a section's pieces; those that a chunk's end must not separate are in one group."""
    groups: list[list[_Token]] = []
    for text, weight in section:
        for part in _split(text, vectors):
            if part in vectors:
                # The embedding is replaced, so any token will do except the end token, whose position the encoder looks for.
                groups.append([_Token(_ANY_TOKEN, weight, vector) for vector in vectors[part]])
            else:
                groups += [[_Token(number, weight)] for number in tokenizer(part, verbose=False).input_ids[1:-1]]
    return groups


def _split(text: str, vectors: Mapping[str, torch.Tensor]) -> list[str]:
    if not vectors:
        return [text]
    # The longest word comes first; otherwise `cat` would match in `cat-2`.
    words = "|".join(re.escape(word) for word in sorted(vectors, key=len, reverse=True))
    return [part for part in re.split(rf"(?<!\w)({words})(?!\w)", text) if part.strip()]


def _chunk(tokens: Sequence[_Token], tokenizer: Any, length: int) -> Chunk:
    rest = length - 2 - len(tokens)
    ids = [tokenizer.bos_token_id, *(token.number for token in tokens), tokenizer.eos_token_id, *[tokenizer.pad_token_id] * rest]
    vectors = {position: token.vector for position, token in enumerate(tokens, 1) if token.vector is not None}
    return Chunk(ids, [1.0, *(token.weight for token in tokens), 1.0, *[1.0] * rest], vectors)
