"""What the UNet is told of the prompts: the text encoders' outputs, with weights, textual inversions and `clip_skip`.

Without any of these it is what diffusers' own `encode_prompt` makes, bit by bit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from services.inference.worker.prompts import Chunk, chunks, empty
from shared.engines import Engine
from shared.models.checkpoints import Components

Vectors = Mapping[str, Sequence[torch.Tensor]]
"""Trigger words and, for each text encoder, the vectors (number, width) that stand for them."""
_PENULTIMATE = 2
"""SDXL was trained on the second last layer (Podell et al. 2023), SD 1.5 on the last."""


@dataclass(frozen=True)
class Prompts:
    """The texts of a request; those for the second encoder are the first's unless given."""

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
    """Return the arguments of a pipeline's call that carry the prompts.

    `clip_skip` n takes the n-th last layer. With `zero_empty` no negative prompt at all is zeros rather than the encoding of
    an empty text, as SDXL was trained.
    """
    wanted = [prompts.prompt, prompts.prompt_2 or prompts.prompt]
    unwanted = [prompts.negative, prompts.negative_2 or prompts.negative]
    if components.info.engine is Engine.SDXL_REFINER:
        # Its one encoder is SDXL's second.
        wanted, unwanted = wanted[1:], unwanted[1:]
    pairs = list(zip(components.text_encoders, components.tokenizers, wanted, unwanted, strict=False))
    cut: list[tuple[list[Chunk], list[Chunk]]] = []
    for number, (encoder, tokenizer, positive, negative) in enumerate(pairs):
        length = encoder.config.max_position_embeddings
        own = {word: tensors[number] for word, tensors in vectors.items()}
        cut.append((chunks(positive, tokenizer, length, own), chunks(negative, tokenizer, length, own)))
    # The UNet sees all encoders and both prompts at one length.
    count = max(len(some) for both in cut for some in both)
    layer = _layer(components.info.engine, None if clip_skip is None else min(clip_skip, deepest(components)))
    sides: list[list[torch.Tensor]] = [[], []]
    pooled: list[torch.Tensor | None] = [None, None]
    for (encoder, tokenizer, _, _), both in zip(pairs, cut, strict=True):
        blank = empty(tokenizer, encoder.config.max_position_embeddings)
        for side, some in enumerate(both):
            hidden, pool = _encode(encoder, some + [blank] * (count - len(some)), blank, layer)
            sides[side].append(hidden)
            pooled[side] = pool if pool is not None else pooled[side]
    dtype = components.unet.dtype
    embeds, negative_embeds = (torch.cat(side, dim=-1).to(dtype) for side in sides)
    # SD 1.5 knows no zeros.
    zero_empty = zero_empty and components.info.engine is not Engine.SD15
    if zero_empty and not prompts.negative and not prompts.negative_2:
        negative_embeds = torch.zeros_like(embeds)
        pooled[1] = None if pooled[0] is None else torch.zeros_like(pooled[0])
    told = {"prompt_embeds": embeds, "negative_prompt_embeds": negative_embeds}
    if pooled[0] is not None and pooled[1] is not None:
        told |= {"pooled_prompt_embeds": pooled[0], "negative_pooled_prompt_embeds": pooled[1]}
    return told


def _encode(
    encoder: Any, pieces: Sequence[Chunk], blank: Chunk, layer: Callable[[Any, Any], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    hidden: list[torch.Tensor] = []
    pooled: torch.Tensor | None = None
    for piece in pieces:
        out = _run(encoder, piece)
        states = layer(encoder, out)
        if piece.is_weighted:
            weights = torch.tensor(piece.weights, device=states.device)[None, :, None]
            nothing = layer(encoder, _run(encoder, blank)).float()
            # Away from, or towards, what no text at all would say at the same place.
            states = (nothing + (states.float() - nothing) * weights).to(states.dtype)
        hidden.append(states)
        # Of the whole picture, the first chunk tells most.
        pooled = getattr(out, "text_embeds", None) if pooled is None else pooled
    return torch.cat(hidden, dim=1), pooled


def _run(encoder: Any, piece: Chunk) -> Any:
    with _replaced(encoder.get_input_embeddings(), piece.vectors):
        return encoder(torch.tensor([piece.ids], device=encoder.device), output_hidden_states=True)


def _layer(engine: Engine, clip_skip: int | None) -> Callable[[Any, Any], torch.Tensor]:
    """Return what takes the layer from an encoder's output: SD 1.5 normalises it, as its last layer is; SDXL does not."""

    def of_sd15(encoder: Any, out: Any) -> torch.Tensor:
        if clip_skip is None or clip_skip == 1:
            return out.last_hidden_state
        # transformers 5.6 flattened the text model that has no projection.
        return getattr(encoder, "text_model", encoder).final_layer_norm(out.hidden_states[-clip_skip])

    def of_sdxl(_encoder: Any, out: Any) -> torch.Tensor:
        return out.hidden_states[-(clip_skip or _PENULTIMATE)]

    return of_sd15 if engine is Engine.SD15 else of_sdxl


@contextmanager
def _replaced(embedding: torch.nn.Module, vectors: Mapping[int, torch.Tensor]) -> Iterator[None]:
    """Put vectors at positions of the embedding's output meanwhile: tokenizer and weights stay everybody's."""

    def replace(_module: torch.nn.Module, _args: Any, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        for position, vector in vectors.items():
            output[:, position] = vector.to(output)
        return output

    hook = embedding.register_forward_hook(replace) if vectors else None
    try:
        yield
    finally:
        if hook:
            hook.remove()
