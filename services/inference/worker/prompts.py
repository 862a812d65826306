"""Prompts as tokens: weights as in `(word:1.5)`, words that stand for a textual inversion, and texts of any length.

Text encoders take 77 tokens at a time. A longer prompt is cut into chunks of that length, each encoded alone, and the UNet's
cross-attention sees them one after the other.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

_ANY_TOKEN = 0
_WEIGHTED = re.compile(r"\(([^()]*):\s*(\d+(?:\.\d+)?)\s*\)")


@dataclass(frozen=True)
class Chunk:
    """What goes through a text encoder in one piece: as many tokens as it takes, begin, end and padding included."""

    ids: list[int]
    weights: list[float]
    vectors: dict[int, torch.Tensor] = field(default_factory=dict)
    """Positions whose token embedding is a vector of a textual inversion."""

    @property
    def is_weighted(self) -> bool:
        """Whether any token counts for more or less than the others."""
        return any(weight != 1.0 for weight in self.weights)


def weighted_pieces(prompt: str) -> list[tuple[str, float]]:
    """Split a prompt at `(text:weight)`. Other parentheses are part of the text, as are those within a weighted one."""
    pieces: list[tuple[str, float]] = []
    end = 0
    for found in _WEIGHTED.finditer(prompt):
        pieces += [(prompt[end : found.start()], 1.0), (found[1], float(found[2]))]
        end = found.end()
    pieces.append((prompt[end:], 1.0))
    return [(text, weight) for text, weight in pieces if text.strip()]


def chunks(prompt: str, tokenizer: Any, length: int, vectors: Mapping[str, torch.Tensor]) -> list[Chunk]:
    """Return the prompt's chunks of `length` tokens, at least one.

    `vectors` maps the words that stand for textual inversions to their vectors (number, width) for this encoder.
    """
    tokens: list[tuple[int, float, torch.Tensor | None]] = []
    for text, weight in weighted_pieces(prompt):
        for part in _split(text, vectors):
            if part in vectors:
                # Which token stands there does not matter, as long as it is not the end's: its embedding is replaced.
                tokens += [(_ANY_TOKEN, weight, vector) for vector in vectors[part]]
            else:
                tokens += [(token, weight, None) for token in tokenizer(part, verbose=False).input_ids[1:-1]]
    room = length - 2
    return [_chunk(tokens[start : start + room], tokenizer, length) for start in range(0, max(1, len(tokens)), room)]


def empty(tokenizer: Any, length: int) -> Chunk:
    """Return the chunk of no text."""
    return _chunk([], tokenizer, length)


def _split(text: str, vectors: Mapping[str, torch.Tensor]) -> list[str]:
    if not vectors:
        return [text]
    # The longest first, or `cat` would be found in `cat-2`.
    words = "|".join(re.escape(word) for word in sorted(vectors, key=len, reverse=True))
    return [part for part in re.split(rf"(?<!\w)({words})(?!\w)", text) if part.strip()]


def _chunk(tokens: Sequence[tuple[int, float, torch.Tensor | None]], tokenizer: Any, length: int) -> Chunk:
    rest = length - 2 - len(tokens)
    ids = [tokenizer.bos_token_id, *(token for token, _, _ in tokens), tokenizer.eos_token_id, *[tokenizer.pad_token_id] * rest]
    vectors = {position: vector for position, (_, _, vector) in enumerate(tokens, 1) if vector is not None}
    return Chunk(ids, [1.0, *(weight for _, weight, _ in tokens), 1.0, *[1.0] * rest], vectors)
