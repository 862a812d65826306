"""Encodes the prompts for the UNet, with weights, textual inversions and `clip_skip`.

Without any of these the result equals that of diffusers' own `encode_prompt`, bit for bit.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from services.inference.worker.prompts import Chunk, chunks, empty
from shared.engines import Engine
from shared.models.checkpoints import Components

Vectors = Mapping[str, Sequence[torch.Tensor]]
"""For each trigger word, the vectors (number, width) that stand for it in each text encoder."""
_PENULTIMATE = 2
"""SDXL was trained on the second-last layer (Podell et al. 2023), SD 1.5 on the last."""


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
        chunked.append((chunks(positive, tokenizer, length, own), chunks(negative, tokenizer, length, own)))
    # The UNet needs the same length from all encoders and for both prompts.
    count = max(len(some) for both in chunked for some in both)
    layer = _layer(components.info.engine, None if clip_skip is None else min(clip_skip, deepest(components)))
    sides: list[list[torch.Tensor]] = [[], []]
    pooled: list[torch.Tensor | None] = [None, None]
    for (encoder, tokenizer, _, _), both in zip(pairs, chunked, strict=True):
        blank = empty(tokenizer, encoder.config.max_position_embeddings)
        for side, some in enumerate(both):
            hidden, pool = _encode(encoder, some + [blank] * (count - len(some)), blank, layer)
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
            # The weight scales the distance from the encoding of an empty text at the same position.
            states = (nothing + (states.float() - nothing) * weights).to(states.dtype)
        hidden.append(states)
        # SDXL uses one pooled vector for the whole image, and the start of a prompt describes it best.
        pooled = getattr(out, "text_embeds", None) if pooled is None else pooled
    return torch.cat(hidden, dim=1), pooled


def _run(encoder: Any, piece: Chunk) -> Any:
    with _replaced(encoder.get_input_embeddings(), piece.vectors):
        return encoder(torch.tensor([piece.ids], device=encoder.device), output_hidden_states=True)


def _layer(engine: Engine, clip_skip: int | None) -> Callable[[Any, Any], torch.Tensor]:
    """Return a function that takes the layer from an encoder's output; only SD 1.5 normalises it, like its last layer."""

    def of_sd15(encoder: Any, out: Any) -> torch.Tensor:
        if clip_skip is None or clip_skip == 1:
            return out.last_hidden_state
        # transformers 5.6 flattened the text model without projection.
        return getattr(encoder, "text_model", encoder).final_layer_norm(out.hidden_states[-clip_skip])

    def of_sdxl(_encoder: Any, out: Any) -> torch.Tensor:
        return out.hidden_states[-(clip_skip or _PENULTIMATE)]

    return of_sd15 if engine is Engine.SD15 else of_sdxl


@contextmanager
def _replaced(embedding: torch.nn.Module, vectors: Mapping[int, torch.Tensor]) -> Generator[None]:
    """Replace positions of the embedding's output inside the block; the shared tokenizer and weights stay unchanged."""

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
