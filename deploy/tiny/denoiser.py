"""Trains the UNet with v-prediction. The training can be resumed."""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch.nn import functional

from deploy.tiny import architecture
from deploy.tiny.text import Conditioning
from deploy.tiny.training import REPORT_EVERY, Report, descend, keep, learning_rate, restore

BATCH = 32
_EMPTY_CAPTION_SHARE = 0.1
"""Share of captions left out, which classifier-free guidance needs (Ho & Salimans 2022)."""
_MAX_DECAY = 0.9995


def train(
    conditioning: Conditioning,
    captions: list[str],
    latents: torch.Tensor,
    *,
    steps: int,
    peak: float,
    state: Path,
    report: Report,
    start: dict[str, torch.Tensor] | None = None,
) -> Any:
    """Train a UNet on scaled latents (n, 4, 16, 16) and return its moving average.

    Every hundred steps the file `state` is replaced; a training that finds it continues from it. Otherwise it begins with the
    weights `start`, of an SD 1.5 UNet, or with random ones.
    """
    model = architecture.unet(sdxl=conditioning.sdxl)
    # On a CPU the gradient of fused attention in bfloat16 takes longer than the rest of the step.
    model.set_attn_processor(AttnProcessor())
    if start is not None:
        model.load_state_dict(widened(start, model))
    average = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=1e-3)
    first = restore(state, model, optimizer, average) if state.exists() else 0
    ids, empty = conditioning.tokenize(captions), conditioning.tokenize([""])
    noise_schedule = architecture.scheduler().alphas_cumprod
    total = 0.0
    for step in range(first, steps):
        # Seeded by the step, so that an interrupted training continues with the same numbers.
        generator = torch.Generator().manual_seed(step)
        rows = torch.randint(0, len(latents), (BATCH,), generator=generator)
        time = torch.randint(0, len(noise_schedule), (BATCH,), generator=generator)
        left_out = torch.rand(BATCH, generator=generator) < _EMPTY_CAPTION_SHARE
        text = conditioning(torch.where(left_out[:, None, None], empty, ids[rows]), generator)
        clean = latents[rows]
        noise = torch.randn(clean.shape, generator=generator)
        alpha = noise_schedule[time][:, None, None, None]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        with torch.autocast("cpu", dtype=torch.bfloat16):
            guess = model(noisy, time, **text).sample
        loss = functional.mse_loss(guess.float(), velocity)
        descend(optimizer, model.parameters(), loss, rate=learning_rate(step, steps, peak))
        decay = min(_MAX_DECAY, (2 + step) / (11 + step))
        for name, value in model.state_dict().items():
            average[name].lerp_(value, 1 - decay)
        total += loss.item()
        if (step + 1) % REPORT_EVERY == 0:
            report(f"unet {step + 1}/{steps}: loss {total / REPORT_EVERY:.4f}")
            total = 0.0
            keep(state, step + 1, model, optimizer, average)
    model.load_state_dict(average)
    return model.eval()


def widened(weights: dict[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    """Return SD 1.5's weights for SDXL's model. At first it draws the same images as SD 1.5's.

    The columns of the second encoder and the last layer of the added embedding are zero, so that the new inputs have no effect
    until they are trained.
    """
    wide = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in wide.items():
        if name not in weights:
            if name.startswith("add_embedding.linear_2"):
                value.zero_()
        elif value.shape == weights[name].shape:
            value.copy_(weights[name])
        else:
            value.zero_()
            value[:, : weights[name].shape[1]] = weights[name]
    return wide
