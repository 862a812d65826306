"""What a request draws with, and one batch of its images from noise to pixels."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from services.inference.inputs import Inputs
from services.inference.worker import canvas as canvases
from services.inference.worker.canvas import Canvas
from services.inference.worker.denoise import Guide, Kept, Pass, Schedule, denoise, noise, schedule
from services.inference.worker.latents import Codec, mask_of
from services.inference.worker.residency import Resident
from services.inference.worker.steps import Steps
from services.inference.worker.text import Prompts, Vectors, encode


@dataclass(frozen=True)
class Finish:
    """A refiner: a second checkpoint that removes the last share of the noise (Podell et al. 2023, section 2.5)."""

    resident: Resident
    codec: Codec
    share: float
    """The share of the noise that the base removes before it."""


@dataclass(frozen=True)
class Scene:
    """The loaded models of a request, and the image that it starts from. LoRAs and textual inversions act on the base only."""

    inputs: Inputs
    base: Resident
    codec: Codec
    size: tuple[int, int]
    """Width and height that the model draws at."""
    canvas: Canvas | None
    guide: Guide | None
    finish: Finish | None
    vectors: Vectors
    state: Hashable
    """What acts on the text encoders besides the texts."""

    @property
    def steps(self) -> int:
        """The steps of a batch."""
        return len(self._schedule().timesteps) + (len(self._finishing(self.finish).timesteps) if self.finish else 0)

    def draw(self, seeds: Sequence[int], steps: Steps) -> list[Image.Image]:
        """Return the images of these seeds, drawn as one batch. Raises what the hook of `steps` raises."""
        # Noise comes from the CPU, so that a seed gives the same image on every device.
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        plan = self._schedule()
        latents, kept = self._start(plan, generators)
        latents = denoise(self._pass(self.base), plan, latents, generators, steps, kept)
        codec = self.codec
        if self.finish is not None:
            latents = denoise(self._pass(self.finish.resident), self._finishing(self.finish), latents, generators, steps)
            codec = self.finish.codec
        return [self._composed(image) for image in codec.decode(latents)]

    def _schedule(self) -> Schedule:
        until = self.finish.share if self.finish else None
        return schedule(self.base.components, self.inputs.sampler, self.inputs.steps, strength=self._strength(), until=until)

    def _finishing(self, finish: Finish) -> Schedule:
        return schedule(finish.resident.components, self.inputs.sampler, self.inputs.steps, since=finish.share)

    def _strength(self) -> float | None:
        if self.inputs.start is None:
            return None
        # At least one step of noise; the small excess compensates for the rounding of steps x strength.
        return max(self.inputs.start.strength, min(1.0, (1 + 1e-6) / self.inputs.steps))

    def _start(self, plan: Schedule, generators: list[torch.Generator]) -> tuple[torch.Tensor, Kept | None]:
        """Return the latents before the first step, and what inpainting keeps."""
        device = self.base.components.unet.device
        width, height = (side // self.codec.factor for side in self.size)
        shape = (self.codec.channels, height, width)
        if self.canvas is None:
            return noise(shape, generators, device) * plan.scheduler.init_noise_sigma, None
        source, mask = self.canvas.model_input(*self.size)
        original = self.codec.encode(source, generators)
        added = noise(shape, generators, device)
        if mask is not None and self._strength() == 1.0:
            latents = added * plan.scheduler.init_noise_sigma
        else:
            latents = plan.scheduler.add_noise(original, added, plan.timesteps[:1].repeat(len(generators)))
        return latents, None if mask is None else Kept(mask_of(mask, height, width).to(device), original, added)

    def _pass(self, resident: Resident) -> Pass:
        components, inputs = resident.components, self.inputs
        unet: Any = components.unet
        is_base = resident is self.base
        text = encode(
            components,
            Prompts(inputs.prompt, inputs.negative_prompt, inputs.prompt_2, inputs.negative_prompt_2),
            clip_skip=inputs.clip_skip if is_base else None,
            vectors=self.vectors if is_base else {},
            zero_empty=components.zeros_for_empty_prompt,
            # Guidance of 1 gives the prompt's own prediction, and a UNet that was distilled with guidance needs none.
            is_guided=inputs.cfg_scale > 1 and unet.config.time_cond_proj_dim is None,
            cache=resident.texts,
            state=self.state if is_base else (),
        )
        return Pass(components, text, inputs.cfg_scale, self.size, self.guide if is_base else None)

    def _composed(self, drawn: Image.Image) -> Image.Image:
        if self.canvas is not None:
            return self.canvas.composed(drawn)
        return canvases.scaled(drawn, self.inputs.width, self.inputs.height)


def share_of_base(inputs: Inputs) -> float | None:
    """Return the share of the noise that the base removes before the refiner, or None if the refiner has no part."""
    if inputs.refine is None:
        return None
    share = max(inputs.refine.high_noise_frac, 1 / inputs.steps)
    starts_at = 1 - inputs.start.strength if inputs.start else 0.0
    return share if starts_at < share < 1 else None
