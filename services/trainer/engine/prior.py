"""Class images: what the base itself generates for the captions without the trigger word (the prior of DreamBooth)."""

from collections.abc import Callable
from itertools import groupby

import torch

from services.trainer.engine.base import Base, generate_latents
from services.trainer.engine.config import Parameters
from services.trainer.engine.order import generator
from services.trainer.engine.text import pipeline_arguments
from shared.formats.clip.emphasis import plain

_IMAGES_AT_ONCE = 8


def generate_class_latents(
    base: Base,
    wanted: list[tuple[str, tuple[int, int]]],
    parameters: Parameters,
    seed: int,
    on_step: Callable[[], None],
) -> list[torch.Tensor]:
    """Generate an image for each (prompt, (height, width) of its latents), and return the latents [channels, height, width].

    They are not decoded, since training would only encode them again. The noise of each image depends on its index alone.
    `on_step` is called after each sampler step, and may raise to stop.
    """
    channels = base.pipeline.unet.config.in_channels
    made: dict[int, torch.Tensor] = {}
    # A forward pass takes images of one size: sort by size, then cut each size into chunks.
    numbered = sorted(enumerate(wanted), key=lambda entry: (entry[1][1], entry[0]))
    for size, members in groupby(numbered, key=lambda entry: entry[1][1]):
        same_size = [(number, prompt) for number, (prompt, _) in members]
        for start in range(0, len(same_size), _IMAGES_AT_ONCE):
            chunk = same_size[start : start + _IMAGES_AT_ONCE]
            noise = [torch.randn((channels, *size), generator=generator(seed, "class", number)) for number, _ in chunk]
            latents = generate_latents(
                base,
                pipeline_arguments(base, [prompt for _, prompt in chunk], plain),
                torch.stack(noise),
                steps=parameters.class_sampler_steps,
                guidance_scale=parameters.class_guidance_scale,
                on_step=on_step,
            )
            made |= {number: latents[index].float().contiguous() for index, (number, _) in enumerate(chunk)}
    return [made[number] for number in range(len(wanted))]
