"""Captions as the UNet reads them: whole, in as many chunks as they need, and encoded by the code that generation uses."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional

from services.trainer.engine.base import Base
from services.trainer.engine.images import Sizes
from shared.engines import Engine
from shared.formats.clip.emphasis import Weighted, plain
from shared.models import text
from shared.models.prompts import Chunk, chunks, empty

Reader = Callable[[str], Weighted]
"""How a text is read: `plain` for captions, in which brackets are text, and `parse` for prompts."""


class Conditioning(NamedTuple):
    """Encoded captions: `hidden` [n, tokens, width] for cross-attention, and `pooled` [n, width] for SDXL only."""

    hidden: torch.Tensor
    pooled: torch.Tensor | None
    mask: torch.Tensor | None = None
    """[n, tokens], 0 for tokens beyond a caption's own; None where all captions have as many."""


def encode(
    base: Base, captions: Sequence[str], read: Reader = plain, *, least_chunks: int = 1, clip_skip: int | None = None
) -> Conditioning:
    """Return the conditioning of these captions; it has gradients if the text encoders have trainable adapters.

    An empty caption gives what generation uses as its unconditional side: zeros where the base's configuration says so (SDXL).
    A caption of fewer than `least_chunks` chunks is followed by empty ones.
    """
    chunked = _chunked(base, captions, read)
    # The encoders' states stand side by side, so each caption needs as many chunks in both.
    counts = [max(least_chunks, *(len(of_one) for of_one in of_caption)) for of_caption in zip(*chunked, strict=True)]
    columns: list[list[torch.Tensor]] = []
    pooled: list[torch.Tensor] = []
    for (encoder, tokenizer), texts in zip(base.tokenized_encoders, chunked, strict=True):
        blank = empty(tokenizer, encoder.config.max_position_embeddings)
        whole = [some + [blank] * (count - len(some)) for some, count in zip(texts, counts, strict=True)]
        encoded = text.encode(encoder, whole, blank, text.layer(base.engine, clip_skip))
        columns.append([states for states, _ in encoded])
        pooled = [pool for _, pool in encoded if pool is not None]
    rows = [torch.cat(of_caption, dim=-1) for of_caption in zip(*columns, strict=True)]
    if base.engine is Engine.SDXL and base.pipeline.config.force_zeros_for_empty_prompt:
        rows = [row if caption else torch.zeros_like(row) for row, caption in zip(rows, captions, strict=True)]
        pooled = [pool if caption else torch.zeros_like(pool) for pool, caption in zip(pooled, captions, strict=True)]
    return _joined(rows, pooled)


@torch.no_grad()
def pipeline_arguments(base: Base, prompts: Sequence[str], read: Reader, clip_skip: int | None = None) -> dict[str, torch.Tensor]:
    """Return the arguments of a pipeline's call that carry these prompts and as many empty negative ones."""
    count = max(len(some) for texts in _chunked(base, prompts, read) for some in texts)
    wanted = encode(base, prompts, read, least_chunks=count, clip_skip=clip_skip)
    unwanted = encode(base, [""] * len(prompts), least_chunks=count, clip_skip=clip_skip)
    arguments = {"prompt_embeds": wanted.hidden, "negative_prompt_embeds": unwanted.hidden}
    if wanted.pooled is not None and unwanted.pooled is not None:
        arguments |= {"pooled_prompt_embeds": wanted.pooled, "negative_pooled_prompt_embeds": unwanted.pooled}
    return arguments


def _chunked(base: Base, captions: Sequence[str], read: Reader) -> list[list[list[Chunk]]]:
    """Return for each encoder the chunks of each caption."""
    return [
        [chunks(read(caption), tokenizer, encoder.config.max_position_embeddings, {}) for caption in captions]
        for encoder, tokenizer in base.tokenized_encoders
    ]


def _joined(rows: Sequence[torch.Tensor], pooled: Sequence[torch.Tensor]) -> Conditioning:
    """Return one conditioning of captions whose states [tokens, width] may differ in length."""
    longest = max(len(row) for row in rows)
    hidden = torch.stack([functional.pad(row, (0, 0, 0, longest - len(row))) for row in rows])
    mask = None
    if any(len(row) < longest for row in rows):
        # Attention to empty chunks would teach a short caption something that generation does not show the UNet.
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=hidden.device)
    return Conditioning(hidden, torch.stack(list(pooled)) if pooled else None, mask)


class Captions:
    """Encodes captions: all of them once if they are `fixed`, since no text encoder is trained; else at each call."""

    def __init__(self, base: Base, captions: set[str], *, fixed: bool, clip_skip: int | None = None) -> None:
        self._base = base
        self._clip_skip = clip_skip
        self._encoded: dict[str, Conditioning] = {}
        if fixed:
            with torch.no_grad():
                self._encoded = {caption: encode(base, [caption], clip_skip=clip_skip) for caption in sorted(captions)}

    def __call__(self, captions: list[str]) -> Conditioning:
        """Return the conditioning of these captions, in this order."""
        if not self._encoded:
            return encode(self._base, captions, clip_skip=self._clip_skip)
        found = [self._encoded[caption] for caption in captions]
        return _joined([one.hidden[0] for one in found], [one.pooled[0] for one in found if one.pooled is not None])


def added_conditions(base: Base, conditioning: Conditioning, sizes: Sequence[Sizes]) -> dict[str, torch.Tensor] | None:
    """Return SDXL's added conditions (Podell et al. 2023, section 2.2), None for SD 1.5.

    They tell the UNet each image's true size and crop. Without them a small or cropped image would teach that large, whole ones
    look like it.
    """
    if conditioning.pooled is None:
        return None
    numbers = [[*one.original, *one.crop, *one.target] for one in sizes]
    time_ids = torch.tensor(numbers, device=base.device, dtype=conditioning.pooled.dtype)
    return {"text_embeds": conditioning.pooled, "time_ids": time_ids}
