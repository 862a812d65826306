"""Trains the VAE, and then its decoder alone on latents with a small error, as a denoiser's have.

Half of the images get patches of other images in other colours. The subject of a tune can combine colours that no image of the
set combines, and a VAE that has never seen such combinations replaces them by ones that it knows.
"""

import math
from typing import Any

import torch
from torch.nn import functional

from deploy.tiny.training import REPORT_EVERY, Report, descend, learning_rate, to_input

BATCH = 16
_DIVERGENCE_WEIGHT = 2e-4
_PATCHES, _PATCHED_SHARE = 3, 0.5
_LATENT_NOISE = 0.1
"""Largest standard deviation of the noise that the decoder learns to ignore. The latents have standard deviation 1."""


def train(model: Any, pixels: torch.Tensor, *, steps: int, report: Report) -> None:
    """Train the VAE on uint8 pixels (n, 64, 64, 3)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        x = _patched(to_input(pixels[torch.randint(0, len(pixels), (BATCH,), generator=generator)]), generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            posterior = model.encode(x).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator)
            y = model.decode(posterior.mean + noise * posterior.std.clamp(max=10)).sample.float()
        divergence = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        loss = _difference(y, x) + _DIVERGENCE_WEIGHT * divergence
        descend(optimizer, model.parameters(), loss, rate=learning_rate(step, steps, 2e-3))
        if step % REPORT_EVERY == 0:
            report(f"vae {step}/{steps}: {_decibels(y, x):.2f} dB")


def refine_decoder(model: Any, pixels: torch.Tensor, *, steps: int, report: Report) -> None:
    """Train the decoder alone on uint8 pixels (n, 64, 64, 3), with a little noise on their latents."""
    parameters = [*model.decoder.parameters(), *model.post_quant_conv.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(2)
    for step in range(steps):
        x = _patched(to_input(pixels[torch.randint(0, len(pixels), (BATCH,), generator=generator)]), generator)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with torch.no_grad():
                z = model.encode(x).latent_dist.mean.float() * model.config.scaling_factor
            error = _LATENT_NOISE * torch.rand(BATCH, 1, 1, 1, generator=generator) * torch.randn(z.shape, generator=generator)
            y = model.decode((z + error) / model.config.scaling_factor).sample.float()
        descend(optimizer, parameters, _difference(y, x), rate=learning_rate(step, steps, 1e-3))
        if step % REPORT_EVERY == 0:
            report(f"decoder {step}/{steps}: {_decibels(y, x):.2f} dB")


@torch.no_grad()
def encode(model: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return the latents (n, 4, 16, 16) of all images, scaled to standard deviation 1, and the scaling factor."""
    latents = torch.cat([model.encode(to_input(part)).latent_dist.mean for part in pixels.split(256)])
    scale = 1 / latents.std().item()
    return latents * scale, scale


def _patched(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return images (n, 3, side, side). Half of them have ovals of other images, with channels swapped or negated."""
    count, side = len(x), x.shape[-1]
    other = x[torch.randperm(count, generator=generator)][:, torch.randperm(3, generator=generator)]
    if torch.rand(1, generator=generator) < 0.5:
        other = -other
    line = torch.linspace(-1, 1, side)
    inside = torch.zeros(count, 1, side, side, dtype=torch.bool)
    for _ in range(_PATCHES):
        middle = torch.rand(count, 2, 1, 1, generator=generator) * 1.6 - 0.8
        radius = 0.08 + 0.3 * torch.rand(count, 2, 1, 1, generator=generator) ** 2
        down = (line[None, None, :, None] - middle[:, :1]) / radius[:, :1]
        across = (line[None, None, None, :] - middle[:, 1:]) / radius[:, 1:]
        inside |= down**2 + across**2 < 1
    chosen = torch.rand(count, 1, 1, 1, generator=generator) < _PATCHED_SHARE
    return torch.where(inside & chosen, other, x)


def _difference(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return absolute plus squared error, plus the error of the edges, which squared error alone blurs."""
    edges = functional.l1_loss(y.diff(dim=-1), x.diff(dim=-1)) + functional.l1_loss(y.diff(dim=-2), x.diff(dim=-2))
    return functional.l1_loss(y, x) + 2 * functional.mse_loss(y, x) + 0.5 * edges


def _decibels(y: torch.Tensor, x: torch.Tensor) -> float:
    """Return the peak signal-to-noise ratio of values in [-1, 1]."""
    return 10 * math.log10(4 / functional.mse_loss(y, x).item())
