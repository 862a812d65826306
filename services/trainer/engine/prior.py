"""The prior: what keeps the base's knowledge of the class while a tune trains (DreamBooth: Ruiz et al. 2023, section 4.3)."""

from collections.abc import Callable
from itertools import groupby

import torch

from services.trainer.engine.base import Base, generate_latents
from services.trainer.engine.cache import Example
from services.trainer.engine.config import Parameters
from services.trainer.engine.images import Sizes
from services.trainer.engine.order import generator
from services.trainer.engine.text import pipeline_arguments
from shared.formats.clip.emphasis import plain

_IMAGES_AT_ONCE = 8


def class_examples(base: Base, latents: list[torch.Tensor], prompts: list[str]) -> list[Example]:
    """Return generated class images as examples, each with its prompt; prompts repeat if there are fewer of them."""
    factor = base.pipeline.vae_scale_factor
    made: list[Example] = []
    for number, one in enumerate(latents):
        size = (one.shape[1] * factor, one.shape[2] * factor)
        made.append(Example(one, torch.zeros_like(one), prompts[number % len(prompts)], Sizes(size, (0, 0), size)))
    return made


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
                pipeline_arguments(base, [prompt for _, prompt in chunk], plain, parameters.clip_skip),
                torch.stack(noise),
                steps=parameters.class_sampler_steps,
                guidance_scale=parameters.class_guidance_scale,
                on_step=on_step,
            )
            made |= {number: latents[index].float().contiguous() for index, (number, _) in enumerate(chunk)}
    return [made[number] for number in range(len(wanted))]
