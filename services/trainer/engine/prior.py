"""Class pictures: what the base itself draws for the captions without the trigger word (DreamBooth's prior)."""

from collections.abc import Callable
from itertools import groupby
from typing import Any

import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

from services.trainer.engine.base import Base
from services.trainer.engine.config import Parameters
from services.trainer.engine.order import generator

_PICTURES_AT_ONCE = 8


def class_prompt(caption: str, trigger_word: str) -> str:
    """Return the caption without the trigger word: "a photo of sks1 dog" gives "a photo of dog"."""
    words = caption.replace(trigger_word, " ") if trigger_word else caption
    return " ".join(words.split()).strip(" ,")


def draw_class_latents(
    base: Base,
    wanted: list[tuple[str, tuple[int, int]]],
    parameters: Parameters,
    seed: int,
    on_step: Callable[[], None],
) -> list[torch.Tensor]:
    """Draw a picture for each (prompt, (height, width) of the latents) and return its latents [4, height, width].

    They stay latents: training would encode them again at once. Each picture's noise depends on its index alone. `on_step`
    is called after each sampler step and may raise to stop.
    """
    base.pipeline.scheduler = DPMSolverMultistepScheduler.from_config(base.pipeline.scheduler.config)
    factor = base.pipeline.vae_scale_factor
    channels = base.pipeline.unet.config.in_channels
    drawn: dict[int, torch.Tensor] = {}

    def report(_pipeline: Any, _step: int, _timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        on_step()
        return kwargs

    numbered = sorted(enumerate(wanted), key=lambda entry: (entry[1][1], entry[0]))
    for (height, width), members in groupby(numbered, key=lambda entry: entry[1][1]):
        bucket = [(number, prompt) for number, (prompt, _) in members]
        for start in range(0, len(bucket), _PICTURES_AT_ONCE):
            chunk = bucket[start : start + _PICTURES_AT_ONCE]
            noise = [torch.randn((channels, height, width), generator=generator(seed, "class", number)) for number, _ in chunk]
            latents = base.pipeline(
                [prompt for _, prompt in chunk],
                height=height * factor,
                width=width * factor,
                num_inference_steps=parameters.class_sampler_steps,
                guidance_scale=parameters.class_guidance_scale,
                latents=torch.stack(noise).to(base.device, base.dtype),
                output_type="latent",
                callback_on_step_end=report,
            ).images
            drawn |= {number: latents[index].float().contiguous() for index, (number, _) in enumerate(chunk)}
    return [drawn[number] for number in range(len(wanted))]
