"""Trains a small canny ControlNet for a small checkpoint (Zhang et al. 2023). The training can be resumed."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from PIL import Image
from torch.nn import functional

from deploy.tiny.text import Conditioning
from deploy.tiny.training import REPORT_EVERY, Report, descend, keep, learning_rate, restore, to_input
from shared.models import checkpoints
from shared.models.edges import canny_edges

STEPS = 2_000
"""About ten minutes on two idle cores."""
BATCH, _PEAK_RATE = 16, 5e-4
_EMPTY_CAPTION_SHARE = 0.5
"""Share of captions left out, so that the model learns to read the edges alone, as in the paper."""
_WIDTHS = (16, 32, 64, 96)


def train(
    base: Path,
    pixels: torch.Tensor,
    captions: list[str],
    target: Path,
    *,
    state: Path,
    report: Report,
    steps: int = STEPS,
    keep_every: int = REPORT_EVERY,
) -> None:
    """Train on images (n, side, side, 3), uint8, with captions, and write `target` in half precision.

    `base` is the checkpoint's folder and does not change. Every `keep_every` steps the file `state` is replaced; a training that
    finds it continues from it.
    """
    parts = checkpoints.load(base, device=torch.device("cpu"), dtype=torch.float32)
    unet: Any = parts.unet
    vae: Any = parts.vae
    # On a CPU the gradient of fused attention in bfloat16 takes longer than the rest of the step.
    unet.set_attn_processor(AttnProcessor())
    # As many strides of two as the VAE has, so that the edges get the size of the latents.
    levels = len(vae.config.block_out_channels)
    torch.manual_seed(0)
    model: Any = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=_WIDTHS[:levels])
    model.set_attn_processor(AttnProcessor())
    optimizer = torch.optim.AdamW(model.parameters(), lr=_PEAK_RATE, weight_decay=1e-2)
    first = restore(state, model, optimizer) if state.exists() else 0
    conditioning = Conditioning(parts.text_encoders, parts.tokenizers)
    ids, empty = conditioning.tokenize(captions), conditioning.tokenize([""])
    noise_schedule: Any = DDPMScheduler.from_pretrained(parts.scheduler_folder)
    total = 0.0
    for step in range(first, steps):
        # Seeded by the step, so that an interrupted training continues with the same numbers.
        generator = torch.Generator().manual_seed(step)
        rows = torch.randint(0, len(pixels), (BATCH,), generator=generator)
        time = torch.randint(0, noise_schedule.config.num_train_timesteps, (BATCH,), generator=generator)
        left_out = torch.rand(BATCH, generator=generator) < _EMPTY_CAPTION_SHARE
        text = conditioning(torch.where(left_out[:, None, None], empty, ids[rows]), generator)
        with torch.no_grad():
            clean = vae.encode(to_input(pixels[rows])).latent_dist.mean * vae.config.scaling_factor
        noise = torch.randn(clean.shape, generator=generator)
        noisy = noise_schedule.add_noise(clean, noise, time)
        v_prediction = noise_schedule.config.prediction_type == "v_prediction"
        wanted = noise_schedule.get_velocity(clean, noise, time) if v_prediction else noise
        with torch.autocast("cpu", dtype=torch.bfloat16):
            down, middle = model(noisy, time, controlnet_cond=_edges(pixels[rows]), return_dict=False, **text)
            guess = unet(noisy, time, down_block_additional_residuals=down, mid_block_additional_residual=middle, **text).sample
        loss = functional.mse_loss(guess.float(), wanted)
        descend(optimizer, model.parameters(), loss, rate=learning_rate(step, steps, _PEAK_RATE))
        total += loss.item()
        if (step + 1) % keep_every == 0:
            keep(state, step + 1, model, optimizer)
            report(f"controlnet {step + 1}/{steps}: loss {total / keep_every:.4f}")
            total = 0.0
    model.to(torch.float16).save_pretrained(target, safe_serialization=True)
    report(f"written to {target}")


def _edges(pixels: torch.Tensor) -> torch.Tensor:
    """Return the edges of images (n, side, side, 3), uint8, as the model's input (n, 3, side, side) in [0, 1]."""
    drawn = [np.asarray(canny_edges(Image.fromarray(image))) for image in pixels.numpy()]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() / 255
