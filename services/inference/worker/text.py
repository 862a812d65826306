"""Encodes the prompts for the UNet, with weights, textual inversions and `clip_skip`.

Without any of these the result equals that of diffusers' own `encode_prompt`, bit for bit.
"""

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from shared.engines import Engine
from shared.formats.clip.emphasis import parse
from shared.models import text
from shared.models.checkpoints import Components
from shared.models.prompts import Chunk, chunks, empty

Vectors = Mapping[str, Sequence[torch.Tensor]]
"""For each trigger word, the vectors (number, width) that stand for it in each text encoder."""


_KEPT_BYTES = 64 * 2**20
"""The encoded chunks that are kept for each checkpoint; SDXL's two encoders return 0.3 MB for one in half precision."""
Encoded = tuple[torch.Tensor, torch.Tensor | None]
"""The states [tokens, width] and the pooled vector [width] of a chunk."""


class TextCache:
    """The chunks that the text encoders of a checkpoint have read, the one unused for longest first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Encoded] = OrderedDict()
        self.size_bytes = 0

    def get(self, key: Hashable) -> Encoded | None:
        """Return what was kept under this key."""
        if found := self._kept.get(key):
            self._kept.move_to_end(key)
        return found

    def put(self, key: Hashable, encoded: Encoded) -> None:
        """Keep a chunk, and forget those unused for longest above the limit."""
        self._kept[key] = encoded
        self.size_bytes += _size_bytes(encoded)
        while self.size_bytes > _KEPT_BYTES:
            self.size_bytes -= _size_bytes(self._kept.popitem(last=False)[1])


@dataclass(frozen=True)
class Prompts:
    """The texts of a request; the second encoder gets the first's unless it has its own."""

    prompt: str
    negative: str
    prompt_2: str | None = None
    negative_2: str | None = None


def deepest(components: Components) -> int:
    """Return the largest `clip_skip` that every text encoder has a layer for."""
    return min(encoder.config.num_hidden_layers for encoder in components.text_encoders)


def encode(
    components: Components,
    prompts: Prompts,
    *,
    clip_skip: int | None,
    vectors: Vectors,
    zero_empty: bool,
    is_guided: bool = True,
    cache: TextCache | None = None,
    state: Hashable = (),
) -> dict[str, torch.Tensor]:
    """Return the encoded prompts, under the names that diffusers' pipelines give them.

    `clip_skip` n uses the n-th last layer. With `zero_empty`, a missing negative prompt is zeros and not the encoding of an
    empty text, as SDXL was trained. Without guidance there is no negative prompt. `cache` keeps what the encoders return while
    they are in this `state`: it names the LoRAs and the vectors that act on them.
    """
    wanted = [prompts.prompt, prompts.prompt_2 or prompts.prompt]
    unwanted = [prompts.negative, prompts.negative_2 or prompts.negative]
    if components.info.engine is Engine.SDXL_REFINER:
        # Its only encoder is SDXL's second.
        wanted, unwanted = wanted[1:], unwanted[1:]
    pairs = list(zip(components.text_encoders, components.tokenizers, wanted, unwanted, strict=False))
    chunked: tuple[list[list[Chunk]], list[list[Chunk]]] = ([], [])
    for number, (encoder, tokenizer, *both) in enumerate(pairs):
        own = {word: tensors[number] for word, tensors in vectors.items()}
        for side, written in zip(chunked, both, strict=True):
            side.append(chunks(parse(written), tokenizer, encoder.config.max_position_embeddings, own))
    # SD 1.5 was trained without zeros.
    is_zero = zero_empty and components.info.engine is not Engine.SD15 and not prompts.negative and not prompts.negative_2
    read = chunked if is_guided and not is_zero else chunked[:1]
    # The UNet needs the same length from all encoders and for both prompts.
    count = max(len(some) for side in read for some in side)
    skip = None if clip_skip is None else min(clip_skip, deepest(components))
    sides = [_read(components, side, count, skip, cache, state) for side in read]
    if is_guided and is_zero:
        sides.append({name: torch.zeros_like(value) for name, value in sides[0].items()})
    return {
        f"{prefix}{name}": value for prefix, side in zip(("", "negative_"), sides, strict=False) for name, value in side.items()
    }


def _read(
    components: Components, texts: list[list[Chunk]], count: int, skip: int | None, cache: TextCache | None, state: Hashable
) -> dict[str, torch.Tensor]:
    """Return the states and, for SDXL, the pooled vector of one prompt, of which `texts` has the chunks for each encoder."""
    take = text.layer(components.info.engine, skip)
    states: list[torch.Tensor] = []
    named: dict[str, torch.Tensor] = {}
    for number, (encoder, tokenizer, some) in enumerate(zip(components.text_encoders, components.tokenizers, texts, strict=True)):
        blank = empty(tokenizer, encoder.config.max_position_embeddings)
        pieces = some + [blank] * (count - len(some))
        # One at a time: a prompt of many chunks needs no more memory, and each chunk has the same bits whatever follows it.
        encoded = [_encode(encoder, piece, blank, take, cache, (number, skip, state)) for piece in pieces]
        states.append(torch.cat([one for one, _ in encoded])[None])
        if (pooled := encoded[0][1]) is not None:
            named["pooled_prompt_embeds"] = pooled[None]
    return {"prompt_embeds": torch.cat(states, dim=-1).to(components.unet.dtype)} | named


def _encode(
    encoder: Any, chunk: Chunk, blank: Chunk, take: text.Layer, cache: TextCache | None, place: tuple[Hashable, ...]
) -> Encoded:
    # The vectors of textual inversions are part of the state; only their positions are in the chunk.
    key = (*place, tuple(chunk.ids), tuple(chunk.weights), tuple(chunk.vectors))
    if cache is not None and (found := cache.get(key)):
        return found
    encoded = text.encode(encoder, [[chunk]], blank, take)[0]
    if cache is not None:
        cache.put(key, encoded)
    return encoded


def _size_bytes(encoded: Encoded) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in encoded if tensor is not None)
