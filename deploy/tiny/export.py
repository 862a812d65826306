"""Writes the trained parts as a checkpoint's folder, in diffusers' layout and half precision."""

import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from transformers import CLIPTokenizer

from deploy.tiny import architecture


def export_sd15(folder: Path, *, vae: Any, text_encoder: Any, tokenizer: Any, unet: Any) -> None:
    """Write an SD 1.5 checkpoint. Replaces the folder."""
    pipeline = StableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet, architecture.scheduler(), None, None, requires_safety_checker=False
    )
    _save(pipeline, folder)


def export_sdxl(folder: Path, *, vae: Any, text_encoders: tuple[Any, Any], tokenizers: tuple[Any, Any], unet: Any) -> None:
    """Write an SDXL checkpoint. Replaces the folder."""
    pipeline = StableDiffusionXLPipeline(
        vae, *text_encoders, *tokenizers, unet, architecture.scheduler(), force_zeros_for_empty_prompt=False
    )
    _save(pipeline, folder)


def _save(pipeline: Any, folder: Path) -> None:
    draft = folder.with_name(folder.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    for part in pipeline.components.values():
        if isinstance(part, CLIPTokenizer):
            # The truncation and padding of its last call would be saved with it.
            part.backend_tokenizer.no_truncation()
            part.backend_tokenizer.no_padding()
    pipeline.to(dtype=torch.float16).save_pretrained(draft, safe_serialization=True)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
