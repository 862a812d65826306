"""ControlNets: a second network that makes the images follow another one (Zhang et al. 2023)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from PIL import Image

from services.inference.inputs import Control
from services.inference.worker.canvas import Box, fitted, opened
from services.inference.worker.denoise import Guide
from services.inference.worker.latents import tensor_of
from shared.errors import InvalidError
from shared.models.checkpoints import Components
from shared.models.edges import canny_edges

_SAME = ("cross_attention_dim", "block_out_channels", "layers_per_block", "addition_embed_type")


def load(folder: Path, device: torch.device, dtype: torch.dtype) -> ControlNetModel:
    """Load a ControlNet from a folder in diffusers' layout. Raises OSError for any other folder."""
    model = ControlNetModel.from_pretrained(folder, torch_dtype=dtype, local_files_only=True, use_safetensors=True)
    return model.to(device).eval().requires_grad_(requires_grad=False)


def check_fits(controlnet: ControlNetModel, name: str, components: Components, base_name: str) -> None:
    """Raise InvalidError unless the ControlNet's copy of the UNet has the shape of this checkpoint's UNet."""
    for key in _SAME:
        ours, theirs = (_plain(model.config.get(key)) for model in (controlnet, components.unet))
        if ours != theirs:
            msg = (
                f"controlnet: {name} does not fit the checkpoint {base_name}: its {key} is {ours}, the checkpoint's {theirs}; "
                "choose another ControlNet or checkpoint"
            )
            raise InvalidError(msg, loc=("body", "controlnet"))


def guide(
    model: ControlNetModel, control: Control, images: Mapping[str, bytes], size: tuple[int, int], box: Box, drawn: tuple[int, int]
) -> Guide | None:
    """Return what the ControlNet follows: the box of the request's image at `size`, scaled to `drawn`. None without effect."""
    if control.early_stop == 0:
        return None
    whole = fitted(opened(images[control.image.key]), *size)
    part = whole.crop(box).resize(drawn, Image.Resampling.LANCZOS)
    followed = canny_edges(part) if control.preprocess == "canny" else part
    end = 1.0 if control.early_stop is None else control.early_stop
    return Guide(model, tensor_of(followed).to(model.device), float(control.scale), end)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
