"""Loads the parts of a single-file checkpoint with diffusers' conversion, offline.

The file is in a folder with the configuration that `shared.formats.single_file` inferred for it. Each part is read separately:
a file of seven gigabytes is not in memory twice, and diffusers cannot mistake one part for another of the same width.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import safe_open
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from shared.engines import Engine
from shared.formats import ldm_shapes, vae
from shared.formats.single_file import WEIGHTS


def load_unet(folder: Path, dtype: torch.dtype) -> UNet2DConditionModel:
    """Load the UNet."""
    weights = _read(folder, ldm_shapes.UNET)
    return UNet2DConditionModel.from_single_file(weights, subfolder="unet", torch_dtype=dtype, **_local(folder))


def load_vae(folder: Path, dtype: torch.dtype) -> AutoencoderKL:
    """Load the VAE."""
    weights = _read(folder, vae.PREFIX)
    return AutoencoderKL.from_single_file(weights, subfolder="vae", torch_dtype=dtype, **_local(folder))


def load_text_encoders(folder: Path, engine: Engine, dtype: torch.dtype) -> list[Any]:
    """Load the engine's text encoders: one for SD 1.5, two for SDXL, and SDXL's second for its refiner."""
    parts: list[tuple[Any, str, str]] = []
    if engine in ldm_shapes.CLIP:
        parts.append((CLIPTextModel, "text_encoder", ldm_shapes.CLIP[engine]))
    if engine in ldm_shapes.OPEN_CLIP:
        parts.append((CLIPTextModelWithProjection, "text_encoder_2", ldm_shapes.OPEN_CLIP[engine]))
    return [
        create_diffusers_clip_model_from_ldm(kind, _read(folder, prefix), subfolder=name, torch_dtype=dtype, **_local(folder))
        for kind, name, prefix in parts
    ]


def _read(folder: Path, prefix: str) -> dict[str, torch.Tensor]:
    with safe_open(folder / WEIGHTS, framework="pt", device="cpu") as file:
        names = [name for name in file.keys() if name.startswith(prefix) and not name.endswith(ldm_shapes.IGNORED)]  # noqa: SIM118 - no mapping
        return {_full_name(name): file.get_tensor(name) for name in names}


def _full_name(name: str) -> str:
    for prefix in ldm_shapes.CLIP.values():
        if name.startswith(prefix):
            return prefix + ldm_shapes.clip_name(name.removeprefix(prefix))
    return name


def _local(folder: Path) -> dict[str, Any]:
    return {"config": str(folder), "local_files_only": True}
