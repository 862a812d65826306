"""Loads a checkpoint's parts from its folder, offline, as classes of diffusers and transformers."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from shared.engines import Engine
from shared.formats.checkpoint import TEXT_ENCODERS, CheckpointInfo, read_folder
from shared.formats.single_file import WEIGHTS
from shared.models import single_file


@dataclass(frozen=True)
class Components:
    """A loaded checkpoint, in eval mode and without gradients."""

    info: CheckpointInfo
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: tuple[CLIPTextModel | CLIPTextModelWithProjection, ...]
    """One for SD 1.5; two for SDXL, the second with a projection; this second one alone for its refiner."""
    tokenizers: tuple[CLIPTokenizer, ...]
    scheduler_folder: Path
    """The folder from which diffusers' schedulers read the noise schedule and the prediction type."""

    @property
    def zeros_for_empty_prompt(self) -> bool:
        """Whether SDXL gets zeros for an empty negative prompt, as in its training, instead of the encoded empty text."""
        index = json.loads((self.scheduler_folder.parent / "model_index.json").read_bytes())
        return bool(index.get("force_zeros_for_empty_prompt", True))


def load(folder: Path, *, device: torch.device, dtype: torch.dtype, vae_dtype: torch.dtype | None = None) -> Components:
    """Load every part, the VAE in a type of its own if one is named.

    Raises InvalidError for a folder that is no checkpoint, and OSError for missing weights.
    """
    info = read_folder(folder)
    names = [part.replace("text_encoder", "tokenizer") for part in TEXT_ENCODERS[info.engine]]
    tokenizers = [CLIPTokenizer.from_pretrained(folder, subfolder=name, local_files_only=True) for name in names]
    parts = _load_single_file if (folder / WEIGHTS).is_file() else _load_folder
    unet, vae, encoders = parts(folder, info.engine, dtype, vae_dtype or dtype)
    for part in (unet, vae, *encoders):
        part.to(device).eval().requires_grad_(requires_grad=False)
    return Components(info, unet, vae, tuple(encoders), tuple(tokenizers), folder / "scheduler")


def _load_single_file(
    folder: Path, engine: Engine, dtype: torch.dtype, vae_dtype: torch.dtype
) -> tuple[UNet2DConditionModel, AutoencoderKL, list[Any]]:
    encoders = single_file.load_text_encoders(folder, engine, dtype)
    return single_file.load_unet(folder, dtype), single_file.load_vae(folder, vae_dtype), encoders


def _load_folder(
    folder: Path, engine: Engine, dtype: torch.dtype, vae_dtype: torch.dtype
) -> tuple[UNet2DConditionModel, AutoencoderKL, list[Any]]:
    options = {"local_files_only": True, "use_safetensors": True}
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=dtype, **options)
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=vae_dtype, **options)
    kinds = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    encoders = [kinds[name].from_pretrained(folder, subfolder=name, dtype=dtype, **options) for name in TEXT_ENCODERS[engine]]
    return unet, vae, encoders
