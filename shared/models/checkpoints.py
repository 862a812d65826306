"""Loads a checkpoint's parts from its folder, offline, with the real diffusers and transformers classes."""

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from shared.checkpoint_files import CheckpointInfo, read_folder
from shared.engines import Engine


@dataclass(frozen=True)
class Components:
    """A checkpoint in memory, in eval mode and without gradients."""

    info: CheckpointInfo
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: tuple[CLIPTextModel | CLIPTextModelWithProjection, ...]
    """One for SD 1.5; two for SDXL, the second with a projection."""
    tokenizers: tuple[CLIPTokenizer, ...]
    scheduler_folder: Path
    """Any diffusers scheduler class reads its noise schedule and prediction type from here."""


def load(folder: Path, *, device: torch.device, dtype: torch.dtype) -> Components:
    """Load every part. Raises InvalidError for a folder that is no checkpoint, OSError for missing weights."""
    info = read_folder(folder)
    options = {"local_files_only": True, "use_safetensors": True}
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=dtype, **options)
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=dtype, **options)
    encoders = [CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=dtype, **options)]
    tokenizers = [CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer", local_files_only=True)]
    if info.engine is Engine.SDXL:
        second = CLIPTextModelWithProjection.from_pretrained(folder, subfolder="text_encoder_2", dtype=dtype, **options)
        encoders.append(second)
        tokenizers.append(CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer_2", local_files_only=True))
    for part in (unet, vae, *encoders):
        part.to(device).eval().requires_grad_(requires_grad=False)
    return Components(info, unet, vae, tuple(encoders), tuple(tokenizers), folder / "scheduler")
