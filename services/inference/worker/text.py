"""Encodes the prompts for the UNet, with weights, textual inversions and `clip_skip`.

Without any of these the result equals that of diffusers' own `encode_prompt`, bit for bit.
"""

from collections.abc import Mapping, Sequence
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
    components: Components, prompts: Prompts, *, clip_skip: int | None, vectors: Vectors, zero_empty: bool
) -> dict[str, torch.Tensor]:
    """Return the arguments for a pipeline that carry the encoded prompts.

    `clip_skip` n uses the n-th last layer. With `zero_empty`, a missing negative prompt is zeros and not the encoding of an
    empty text, as SDXL was trained.
    """
    wanted = [prompts.prompt, prompts.prompt_2 or prompts.prompt]
    unwanted = [prompts.negative, prompts.negative_2 or prompts.negative]
    if components.info.engine is Engine.SDXL_REFINER:
        # Its only encoder is SDXL's second.
        wanted, unwanted = wanted[1:], unwanted[1:]
    pairs = list(zip(components.text_encoders, components.tokenizers, wanted, unwanted, strict=False))
    chunked: list[tuple[list[Chunk], list[Chunk]]] = []
    for number, (encoder, tokenizer, positive, negative) in enumerate(pairs):
        length = encoder.config.max_position_embeddings
        own = {word: tensors[number] for word, tensors in vectors.items()}
        chunked.append((chunks(parse(positive), tokenizer, length, own), chunks(parse(negative), tokenizer, length, own)))
    # The UNet needs the same length from all encoders and for both prompts.
    count = max(len(some) for both in chunked for some in both)
    take = text.layer(components.info.engine, None if clip_skip is None else min(clip_skip, deepest(components)))
    sides: list[list[torch.Tensor]] = [[], []]
    pooled: list[torch.Tensor | None] = [None, None]
    for (encoder, tokenizer, _, _), both in zip(pairs, chunked, strict=True):
        blank = empty(tokenizer, encoder.config.max_position_embeddings)
        for side, some in enumerate(both):
            hidden, pool = _encode(encoder, some + [blank] * (count - len(some)), blank, take)
            sides[side].append(hidden)
            pooled[side] = pool if pool is not None else pooled[side]
    dtype = components.unet.dtype
    embeds, negative_embeds = (torch.cat(side, dim=-1).to(dtype) for side in sides)
    # SD 1.5 was trained without zeros.
    zero_empty = zero_empty and components.info.engine is not Engine.SD15
    if zero_empty and not prompts.negative and not prompts.negative_2:
        negative_embeds = torch.zeros_like(embeds)
        pooled[1] = None if pooled[0] is None else torch.zeros_like(pooled[0])
    arguments = {"prompt_embeds": embeds, "negative_prompt_embeds": negative_embeds}
    if pooled[0] is not None and pooled[1] is not None:
        arguments |= {"pooled_prompt_embeds": pooled[0], "negative_pooled_prompt_embeds": pooled[1]}
    return arguments


def _encode(encoder: Any, pieces: Sequence[Chunk], blank: Chunk, take: text.Layer) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the states and the pooled vector of one prompt, each with a batch dimension."""
    # One at a time: a prompt of many chunks needs no more memory, and each chunk has the same bits whatever follows it.
    encoded = [text.encode(encoder, [[piece]], blank, take)[0] for piece in pieces]
    pooled = encoded[0][1]
    return torch.cat([states for states, _ in encoded])[None], None if pooled is None else pooled[None]
