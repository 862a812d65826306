"""Trains the small models' parts, one function a part; each returns when its steps are done."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from services.trainer.tiny import architecture
from services.trainer.tiny.pictures import CLASSES
from services.trainer.tiny.tokenizer import MAX_TOKENS

Report = Callable[[str], None]
_REPORT_EVERY = 100
_EMPTY_CAPTION_SHARE = 0.1
"""Share of captions left out, which classifier-free guidance needs (Ho & Salimans 2022)."""


def learning_rate(step: int, steps: int, peak: float, warm_up: float = 0.03) -> float:
    """Return the learning rate of a step: a short warm-up, then half a cosine down to 2 % of the peak."""
    done = step / steps
    return peak * min(1.0, done / warm_up) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def to_input(pixels: torch.Tensor) -> torch.Tensor:
    """Turn uint8 pixels (n, 64, 64, 3) into the VAE's input (n, 3, 64, 64) in [-1, 1]."""
    return pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1).contiguous()


def train_autoencoder(pixels: torch.Tensor, *, steps: int, report: Report) -> Any:
    """Train the VAE on uint8 pixels (n, 64, 64, 3): absolute and squared error, and edges, which squared error blurs."""
    model = architecture.autoencoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        _set_rate(optimizer, learning_rate(step, steps, 2e-3))
        x = to_input(pixels[torch.randint(0, len(pixels), (16,), generator=generator)])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            posterior = model.encode(x).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator)
            y = model.decode(posterior.mean + noise * posterior.std.clamp(max=10)).sample
        y = y.float()
        edges = functional.l1_loss(y.diff(dim=-1), x.diff(dim=-1)) + functional.l1_loss(y.diff(dim=-2), x.diff(dim=-2))
        mse = functional.mse_loss(y, x)
        divergence = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        (functional.l1_loss(y, x) + 2 * mse + 0.5 * edges + 2e-4 * divergence).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % _REPORT_EVERY == 0:
            report(f"vae {step}/{steps}: {10 * math.log10(4 / mse.item()):.2f} dB")
    return model.eval()


@torch.no_grad()
def encode(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Return the latents (n, 4, 16, 16) of all pictures, scaled to a standard deviation of 1, as the model's config says."""
    latents = torch.cat([model.encode(to_input(part)).latent_dist.mean for part in pixels.split(256)])
    scale = 1 / latents.std().item()
    model.register_to_config(scaling_factor=scale)
    return latents * scale


def tokenize(tokenizer: Any, captions: list[str]) -> torch.Tensor:
    """Return the token ids (n, 32) of captions."""
    made = tokenizer(captions, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    return made.input_ids


def train_text_encoder(tokenizer: Any, captions: list[str], labels: torch.Tensor, *, steps: int, report: Report) -> Any:
    """Train the text encoder alone, to tell what a caption's picture shows (labels (n, 4)).

    Trained together with the UNet from scratch, neither gets anywhere.
    """
    model = architecture.text_encoder(tokenizer)
    heads = torch.nn.ModuleList(torch.nn.Linear(architecture.TEXT_WIDTH, classes) for classes in CLASSES)
    optimizer = torch.optim.AdamW([*model.parameters(), *heads.parameters()], lr=1e-3, weight_decay=1e-2)
    generator = torch.Generator().manual_seed(1)
    ids = tokenize(tokenizer, captions)
    for step in range(steps):
        _set_rate(optimizer, learning_rate(step, steps, 1e-3))
        rows = torch.randint(0, len(ids), (128,), generator=generator)
        pooled = model(ids[rows]).pooler_output
        losses = [functional.cross_entropy(head(pooled), labels[rows, number]) for number, head in enumerate(heads)]
        loss = torch.stack(losses).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % _REPORT_EVERY == 0:
            report(f"text encoder {step}/{steps}: loss {loss.item():.4f}")
    return model.eval()


def train_unet(
    text_encoder: Any, tokenizer: Any, captions: list[str], latents: torch.Tensor, *, steps: int, state: Path, report: Report
) -> Any:
    """Train the SD 1.5 UNet on scaled latents (n, 4, 16, 16) with v-prediction, and return its moving average.

    Goes on from `state` when it exists, which is written every few hundred steps, whole or not at all.
    """
    model = architecture.unet(sdxl=False).to(memory_format=torch.channels_last)
    average = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-3)
    first = _restore(state, model, average, optimizer) if state.exists() else 0
    ids = tokenize(tokenizer, captions)
    with torch.no_grad():
        nothing = text_encoder(tokenize(tokenizer, [""])).last_hidden_state[0]
    noise_schedule = architecture.scheduler().alphas_cumprod
    total = 0.0
    for step in range(first, steps):
        # A function of the step alone, so that a training that was cut short goes on as if it had not been.
        generator = torch.Generator().manual_seed(step)
        _set_rate(optimizer, learning_rate(step, steps, 1e-3))
        rows = torch.randint(0, len(latents), (32,), generator=generator)
        time = torch.randint(0, len(noise_schedule), (32,), generator=generator)
        left_out = torch.rand(32, generator=generator) < _EMPTY_CAPTION_SHARE
        with torch.no_grad():
            text = text_encoder(ids[rows]).last_hidden_state
        text = torch.where(left_out[:, None, None], nothing, text)
        clean = latents[rows]
        noise = torch.randn(clean.shape, generator=generator)
        alpha = noise_schedule[time][:, None, None, None]
        noisy = (alpha.sqrt() * clean + (1 - alpha).sqrt() * noise).contiguous(memory_format=torch.channels_last)
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        loss = functional.mse_loss(model(noisy, time, text).sample, velocity)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay = min(0.9995, (2 + step) / (11 + step))
        for name, value in model.state_dict().items():
            average[name].lerp_(value, 1 - decay)
        total += loss.item()
        if (step + 1) % _REPORT_EVERY == 0:
            report(f"unet {step + 1}/{steps}: loss {total / _REPORT_EVERY:.4f}")
            total = 0.0
            _keep(state, step + 1, model, average, optimizer)
    model.load_state_dict(average)
    return model.eval()


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _keep(path: Path, step: int, model: Any, average: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> None:
    tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average/{name}": value for name, value in average.items()}
    for name, parameter in model.named_parameters():
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors[f"{moment}/{name}"] = optimizer.state[parameter][moment]
    tensors["step"] = torch.tensor(step)
    draft = path.with_suffix(".draft")
    save_file({name: value.contiguous() for name, value in tensors.items()}, draft)
    draft.replace(path)


def _restore(path: Path, model: Any, average: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> int:
    tensors = load_file(path)
    model.load_state_dict({name: tensors[f"model/{name}"] for name in average})
    for name, value in average.items():
        value.copy_(tensors[f"average/{name}"])
    step = int(tensors["step"])
    for name, parameter in model.named_parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(float(step)),
            "exp_avg": tensors[f"exp_avg/{name}"],
            "exp_avg_sq": tensors[f"exp_avg_sq/{name}"],
        }
    return step


def load_set(folder: Path) -> tuple[torch.Tensor, list[str], torch.Tensor]:
    """Return a picture set's pixels (n, 64, 64, 3), captions and labels (n, 4)."""
    captions = (folder / "captions.txt").read_text().split("\n")
    return torch.from_numpy(np.load(folder / "pixels.npy")), captions, torch.from_numpy(np.load(folder / "labels.npy"))
