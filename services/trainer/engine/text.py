"""Captions as the UNet reads them, by the same code that generation uses."""

from typing import NamedTuple

import torch

from services.trainer.engine.base import Base
from shared.engines import Engine


class Conditioning(NamedTuple):
    """Encoded captions: `hidden` [n, tokens, width] for cross-attention, `pooled` [n, width] for SDXL alone."""

    hidden: torch.Tensor
    pooled: torch.Tensor | None


def encode(base: Base, captions: list[str]) -> Conditioning:
    """Encode captions; with gradients where the text encoders have trainable adapters.

    An empty caption is what generation takes as its unconditional side: zeros where the base was made so (SDXL).
    """
    encoded = base.pipeline.encode_prompt(
        captions, device=base.device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if base.engine is Engine.SD15:
        return Conditioning(encoded[0], None)
    hidden, pooled = encoded[0], encoded[2]
    if base.pipeline.config.force_zeros_for_empty_prompt:
        said = torch.tensor([bool(caption) for caption in captions], device=hidden.device, dtype=hidden.dtype)
        hidden, pooled = hidden * said[:, None, None], pooled * said[:, None]
    return Conditioning(hidden, pooled)


class Captions:
    """Encodes captions once and for all while no text encoder is trained, else anew at each step."""

    def __init__(self, base: Base, captions: set[str], *, fixed: bool) -> None:
        self._base = base
        self._kept: dict[str, Conditioning] = {}
        if fixed:
            with torch.no_grad():
                self._kept = {caption: encode(base, [caption]) for caption in sorted(captions)}

    def __call__(self, captions: list[str]) -> Conditioning:
        """Return the conditioning of these captions, in this order."""
        if not self._kept:
            return encode(self._base, captions)
        found = [self._kept[caption] for caption in captions]
        pooled = [one.pooled for one in found if one.pooled is not None]
        return Conditioning(torch.cat([one.hidden for one in found]), torch.cat(pooled) if pooled else None)


def added_conditions(base: Base, conditioning: Conditioning, height_px: int, width_px: int) -> dict[str, torch.Tensor] | None:
    """Return SDXL's added conditions (Podell et al. 2023, section 2.2), None for SD 1.5.

    Original and target size are the bucket's and the crop is (0, 0), as generation asks by default: what the tune learns is
    then not tied to the sizes that the images happened to have.
    """
    if conditioning.pooled is None:
        return None
    sizes = [height_px, width_px, 0, 0, height_px, width_px]
    time_ids = torch.tensor([sizes], device=base.device, dtype=conditioning.pooled.dtype)
    return {"text_embeds": conditioning.pooled, "time_ids": time_ids.expand(conditioning.pooled.shape[0], -1)}
