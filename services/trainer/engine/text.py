"""Captions as the UNet reads them, encoded by the same code that generation uses."""

from typing import NamedTuple

import torch

from services.trainer.engine.base import Base
from shared.engines import Engine


class Conditioning(NamedTuple):
    """Encoded captions: `hidden` [n, tokens, width] for cross-attention, and `pooled` [n, width] for SDXL only."""

    hidden: torch.Tensor
    pooled: torch.Tensor | None


def encode(base: Base, captions: list[str]) -> Conditioning:
    """Return the conditioning of these captions; it has gradients if the text encoders have trainable adapters.

    An empty caption gives what generation uses as its unconditional side: zeros where the base's configuration says so (SDXL).
    """
    encoded = base.pipeline.encode_prompt(
        captions, device=base.device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if base.engine is Engine.SD15:
        return Conditioning(encoded[0], None)
    hidden, pooled = encoded[0], encoded[2]
    if base.pipeline.config.force_zeros_for_empty_prompt:
        keep = torch.tensor([bool(caption) for caption in captions], device=hidden.device, dtype=hidden.dtype)
        hidden, pooled = hidden * keep[:, None, None], pooled * keep[:, None]
    return Conditioning(hidden, pooled)


class Captions:
    """Encodes captions: all of them once if they are `fixed`, since no text encoder is trained; else at each call."""

    def __init__(self, base: Base, captions: set[str], *, fixed: bool) -> None:
        self._base = base
        self._encoded: dict[str, Conditioning] = {}
        if fixed:
            with torch.no_grad():
                self._encoded = {caption: encode(base, [caption]) for caption in sorted(captions)}

    def __call__(self, captions: list[str]) -> Conditioning:
        """Return the conditioning of these captions, in this order."""
        if not self._encoded:
            return encode(self._base, captions)
        found = [self._encoded[caption] for caption in captions]
        pooled = [one.pooled for one in found if one.pooled is not None]
        return Conditioning(torch.cat([one.hidden for one in found]), torch.cat(pooled) if pooled else None)


def added_conditions(base: Base, conditioning: Conditioning, height_px: int, width_px: int) -> dict[str, torch.Tensor] | None:
    """Return SDXL's added conditions (Podell et al. 2023, section 2.2), None for SD 1.5.

    Original and target size are the bucket's, and the crop is (0, 0), as generation sets them by default. The tune then learns
    nothing that depends on the sizes of the uploaded images.
    """
    if conditioning.pooled is None:
        return None
    sizes = [height_px, width_px, 0, 0, height_px, width_px]
    time_ids = torch.tensor([sizes], device=base.device, dtype=conditioning.pooled.dtype)
    return {"text_embeds": conditioning.pooled, "time_ids": time_ids.expand(conditioning.pooled.shape[0], -1)}
