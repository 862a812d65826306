"""Encodes chunks of tokens for the UNet: the one way that prompts in generation and captions in training are read."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from shared.engines import Engine
from shared.models.prompts import Chunk

Layer = Callable[[Any, Any], torch.Tensor]
"""Takes an encoder and its output, and returns the states that the UNet reads."""
_PENULTIMATE = 2
"""SDXL was trained on the second-last layer (Podell et al. 2023), SD 1.5 on the last."""


def layer(engine: Engine, clip_skip: int | None) -> Layer:
    """Return a function that takes the n-th last layer, or the usual one; only SD 1.5 normalises it, like its last layer."""

    def of_sd15(encoder: Any, out: Any) -> torch.Tensor:
        if clip_skip is None or clip_skip == 1:
            return out.last_hidden_state
        # transformers 5.6 flattened the text model without projection.
        return getattr(encoder, "text_model", encoder).final_layer_norm(out.hidden_states[-clip_skip])

    def of_sdxl(_encoder: Any, out: Any) -> torch.Tensor:
        return out.hidden_states[-(clip_skip or _PENULTIMATE)]

    return of_sd15 if engine is Engine.SD15 else of_sdxl


def encode(encoder: Any, texts: Sequence[Sequence[Chunk]], blank: Chunk, take: Layer) -> list[tuple[torch.Tensor, Any]]:
    """Return for each text its states [chunks * tokens, width] and its pooled vector [width], which is None for SD 1.5.

    All chunks pass through the encoder together. `blank` is the chunk of an empty text. A weight scales the distance of a token's
    state from the state of the empty text at the same position, as ComfyUI does it.
    """
    chunks = [chunk for text in texts for chunk in text]
    out = _run(encoder, chunks)
    states = take(encoder, out)
    if any(chunk.is_weighted for chunk in chunks):
        weights = torch.tensor([chunk.weights for chunk in chunks], device=states.device)[:, :, None]
        nothing = take(encoder, _run(encoder, [blank])).float()
        blended = nothing + (states.float() - nothing) * weights
        # A chunk without weights stays as it is, bit for bit.
        is_weighted = torch.tensor([chunk.is_weighted for chunk in chunks], device=states.device)[:, None, None]
        states = torch.where(is_weighted, blended.to(states.dtype), states)
    pooled = getattr(out, "text_embeds", None)
    encoded: list[tuple[torch.Tensor, Any]] = []
    first = 0
    for text in texts:
        # SDXL uses one pooled vector for the whole image, and the start of a prompt describes it best.
        encoded.append((states[first : first + len(text)].flatten(0, 1), None if pooled is None else pooled[first]))
        first += len(text)
    return encoded


def _run(encoder: Any, chunks: Sequence[Chunk]) -> Any:
    vectors = {(row, position): vector for row, chunk in enumerate(chunks) for position, vector in chunk.vectors.items()}
    with _replaced(encoder.get_input_embeddings(), vectors):
        return encoder(torch.tensor([chunk.ids for chunk in chunks], device=encoder.device), output_hidden_states=True)


@contextmanager
def _replaced(embedding: torch.nn.Module, vectors: Mapping[tuple[int, int], torch.Tensor]) -> Generator[None]:
    """Replace positions of the embedding's output inside the block; the shared tokenizer and weights stay unchanged."""

    def replace(_module: torch.nn.Module, _args: Any, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        for (row, position), vector in vectors.items():
            output[row, position] = vector.to(output)
        return output

    hook = embedding.register_forward_hook(replace) if vectors else None
    try:
        yield
    finally:
        if hook:
            hook.remove()
