"""ControlNets: a second network that makes the images follow another one (Zhang et al. 2023)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from PIL import Image

from services.inference.inputs import Control
from services.inference.worker.canvas import Box, fitted, opened
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


def followed_image(
    control: Control, images: Mapping[str, bytes], size: tuple[int, int], box: Box, drawn_size: tuple[int, int]
) -> Image.Image:
    """Return the image that the ControlNet follows: the box of the request's image at `size`, scaled to `drawn_size`."""
    whole = fitted(opened(images[control.image.key]), *size)
    part = whole.crop(box).resize(drawn_size, Image.Resampling.LANCZOS)
    return canny_edges(part) if control.preprocess == "canny" else part


def options(control: Control) -> dict[str, Any]:
    """Return the arguments for a pipeline that say how strongly and for how long the ControlNet works."""
    if control.early_stop == 0:
        # diffusers refuses an end of 0.
        return {"controlnet_conditioning_scale": 0.0}
    return {"controlnet_conditioning_scale": float(control.scale), "control_guidance_end": control.early_stop or 1.0}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
