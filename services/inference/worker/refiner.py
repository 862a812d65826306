"""The refiner: a second checkpoint that removes the last share of the noise (Podell et al. 2023, section 2.5)."""

from typing import Any

import torch

from services.inference.inputs import Inputs
from services.inference.worker.text import Prompts, encode
from shared.models import pipelines, samplers
from shared.models.checkpoints import Components


def share_of_base(inputs: Inputs) -> float | None:
    """Return the share of the noise that the base removes before the refiner, or None if the refiner has no part."""
    if inputs.refine is None:
        return None
    share = max(inputs.refine.high_noise_frac, 1 / inputs.steps)
    starts_at = 1 - inputs.start.strength if inputs.start else 0.0
    return share if starts_at < share < 1 else None


class Refiner:
    """Finishes the latents of the base. LoRAs apply to the base only."""

    def __init__(self, components: Components, inputs: Inputs, share: float) -> None:
        self._inputs = inputs
        self._share = share
        self._components = components
        self._pipeline = pipelines.build(components, self._scheduler(), task=pipelines.Task.IMAGE_TO_IMAGE)
        self._text = encode(
            components,
            Prompts(inputs.prompt, inputs.negative_prompt, inputs.prompt_2, inputs.negative_prompt_2),
            clip_skip=None,
            vectors={},
            zero_empty=components.zeros_for_empty_prompt,
        )

    def finish(self, latents: torch.Tensor, generator: torch.Generator, check: Any) -> Any:
        """Return the finished image."""
        self._pipeline.scheduler = self._scheduler()
        return self._pipeline(
            **self._text,
            image=latents,
            denoising_start=self._share,
            num_inference_steps=self._inputs.steps,
            guidance_scale=self._inputs.cfg_scale,
            generator=generator,
            callback_on_step_end=check,
            output_type="pil",
            **samplers.pipeline_options(self._inputs.sampler),
        ).images[0]

    def _scheduler(self) -> Any:
        return samplers.make(self._inputs.sampler, self._components.scheduler_folder, self._inputs.steps)
