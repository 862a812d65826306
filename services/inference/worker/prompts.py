"""Prompts as tokens: weights such as `(word:1.5)`, words that stand for a textual inversion, and texts of any length.

Text encoders take 77 tokens at a time. A longer prompt is cut into chunks of that length. Each chunk is encoded alone, and the
UNet's cross-attention sees the chunks one after the other.
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
    """One input of a text encoder: as many tokens as it takes, including begin, end and padding."""

    ids: list[int]
    weights: list[float]
    vectors: dict[int, torch.Tensor] = field(default_factory=dict)
    """The vectors of textual inversions by the position whose token embedding they replace."""

    @property
    def is_weighted(self) -> bool:
        """Whether any token has a weight other than 1."""
        return any(weight != 1.0 for weight in self.weights)


def weighted_pieces(prompt: str) -> list[tuple[str, float]]:
    """Return the prompt split at `(text:weight)`, with weights. Other parentheses are part of the text."""
    pieces: list[tuple[str, float]] = []
    end = 0
    for found in _WEIGHTED.finditer(prompt):
        pieces += [(prompt[end : found.start()], 1.0), (found[1], float(found[2]))]
        end = found.end()
    pieces.append((prompt[end:], 1.0))
    return [(text, weight) for text, weight in pieces if text.strip()]


def chunks(prompt: str, tokenizer: Any, length: int, vectors: Mapping[str, torch.Tensor]) -> list[Chunk]:
    """Return the prompt's chunks of `length` tokens, at least one.

    `vectors` maps each word that stands for a textual inversion to its vectors (number, width) for this encoder.
    """
    tokens: list[tuple[int, float, torch.Tensor | None]] = []
    for text, weight in weighted_pieces(prompt):
        for part in _split(text, vectors):
            if part in vectors:
                # The embedding is replaced, so any token will do except the end token, whose position the encoder looks for.
                tokens += [(_ANY_TOKEN, weight, vector) for vector in vectors[part]]
            else:
                tokens += [(token, weight, None) for token in tokenizer(part, verbose=False).input_ids[1:-1]]
    room = length - 2
    return [_chunk(tokens[start : start + room], tokenizer, length) for start in range(0, max(1, len(tokens)), room)]


def empty(tokenizer: Any, length: int) -> Chunk:
    """Return the chunk of an empty text."""
    return _chunk([], tokenizer, length)


def _split(text: str, vectors: Mapping[str, torch.Tensor]) -> list[str]:
    if not vectors:
        return [text]
    # The longest word comes first; otherwise `cat` would match in `cat-2`.
    words = "|".join(re.escape(word) for word in sorted(vectors, key=len, reverse=True))
    return [part for part in re.split(rf"(?<!\w)({words})(?!\w)", text) if part.strip()]


def _chunk(tokens: Sequence[tuple[int, float, torch.Tensor | None]], tokenizer: Any, length: int) -> Chunk:
    rest = length - 2 - len(tokens)
    ids = [tokenizer.bos_token_id, *(token for token, _, _ in tokens), tokenizer.eos_token_id, *[tokenizer.pad_token_id] * rest]
    vectors = {position: vector for position, (_, _, vector) in enumerate(tokens, 1) if vector is not None}
    return Chunk(ids, [1.0, *(weight for _, weight, _ in tokens), 1.0, *[1.0] * rest], vectors)
