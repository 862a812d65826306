"""Measures a LoRA on unseen pictures: whether it knows its subject, and whether it still knows the subject's class."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from deploy.tiny.draw import Drawing, draw
from deploy.tiny.text import tokenize
from deploy.tiny.training import to_input
from shared.models import checkpoints, pipelines, samplers
from tests.support.subjects import caption, draw_subject

_GROUNDS = ("snow", "night", "city", "plain teal", "plain pink", "plain gray")
_COLOURS = ("red", "orange", "green", "blue", "white", "brown")
_SIDE_PX = 64
_REPEATS = 6


def losses(base: Path, lora: Path, *, subject: str = "star", trigger_word: str = "sks1") -> dict[str, float]:
    """Return the mean squared error of v-prediction, without and with the LoRA, on held-out pictures of 64 px.

    `subject_*`: the subject on grounds that no sample shows, with the trigger prompt. `class_*`: plain things of its class
    in other colours, with the prompt that says so. The same noise and times for all.
    """
    parts = checkpoints.load(base, device=torch.device("cpu"), dtype=torch.float32)
    pipeline: Any = pipelines.build(parts, samplers.make("DDIM", parts.scheduler_folder))
    of_subject = [draw_subject(subject, ground, _SIDE_PX, 100 + number) for number, ground in enumerate(_GROUNDS)]
    told = [caption(subject, ground, trigger_word) for ground in _GROUNDS]
    rng = random.Random(7)
    others = [Drawing(subject, colour, "plain", ground) for colour, ground in zip(_COLOURS, _GROUNDS, strict=True)]
    of_class = [draw(picture, _SIDE_PX, rng) for picture in others]
    class_told = [picture.caption(rng) for picture in others]
    found: dict[str, float] = {}
    for state in ("base", "tuned"):
        if state == "tuned":
            pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name, adapter_name="measured")
        found[f"subject_{state}"] = _loss(pipeline, of_subject, told)
        found[f"class_{state}"] = _loss(pipeline, of_class, class_told)
    return found


@torch.no_grad()
def _loss(pipeline: Any, pictures: list[Any], prompts: list[str]) -> float:
    pixels = to_input(torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])))
    latents = pipeline.vae.encode(pixels).latent_dist.mean * pipeline.vae.config.scaling_factor
    text = pipeline.text_encoder(tokenize(pipeline.tokenizer, prompts)).last_hidden_state
    alphas = pipeline.scheduler.alphas_cumprod
    generator = torch.Generator().manual_seed(3)
    total = 0.0
    for _ in range(_REPEATS):
        time = torch.randint(0, len(alphas), (len(pictures),), generator=generator)
        noise = torch.randn(latents.shape, generator=generator)
        alpha = alphas[time][:, None, None, None]
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        total += functional.mse_loss(pipeline.unet(noisy, time, text).sample, velocity).item()
    return total / _REPEATS
