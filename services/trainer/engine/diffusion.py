"""The diffusion loss of a step's rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from services.trainer.engine.base import Base
from services.trainer.engine.cache import Example
from services.trainer.engine.config import Parameters
from services.trainer.engine.loss import min_snr_weights, prediction_target
from services.trainer.engine.network import switched_off
from services.trainer.engine.text import Captions, added_conditions


class Row(NamedTuple):
    """An example in a step, and the weight of its loss; `of_base` if the base's own output is the target, not the image."""

    example: Example
    share: float
    of_base: bool = False


class _Noised(NamedTuple):
    """A row after the forward process, with the caption that it is trained with."""

    row: Row
    latents: torch.Tensor
    noise: torch.Tensor
    timestep: torch.Tensor
    caption: str


@dataclass(frozen=True)
class StepLoss:
    """Computes the loss of a step in as many forward passes as there are sizes of images, or more if memory is short."""

    base: Base
    captions: Captions
    base_captions: Captions
    """Reads captions with the text encoders as they were before the training."""
    layers: Sequence[Any]
    """The UNet's layers with an adapter."""
    parameters: Parameters
    rows_at_once: int

    def __call__(self, rows: Sequence[Row], rng: torch.Generator) -> Iterator[torch.Tensor]:
        """Yield parts of the loss, one for each forward pass; their sum is the step's loss.

        The caller runs each part's backward pass before the next part is computed, so that only one part's activations exist.
        """
        for size in sorted({tuple(row.example.mean.shape) for row in rows}):
            noised = self._noised([row for row in rows if tuple(row.example.mean.shape) == size], rng)
            for start in range(0, len(noised), self.rows_at_once):
                yield self._part(noised[start : start + self.rows_at_once])

    def _noised(self, rows: Sequence[Row], rng: torch.Generator) -> list[_Noised]:
        """Run the forward process on rows of one size. All draws are made here, so that they do not depend on `rows_at_once`."""
        schedule, device = self.base.noise_schedule, self.base.device
        shape = (len(rows), *rows[0].example.mean.shape)

        # Draw latents from the distribution that the VAE gives for each image.
        mean = torch.stack([row.example.mean for row in rows])
        deviation = torch.stack([row.example.deviation for row in rows])
        latents = mean + deviation * torch.randn(shape, generator=rng).to(device)
        noise = torch.randn(shape, generator=rng).to(device)
        timesteps = torch.randint(0, schedule.config["num_train_timesteps"], shape[:1], generator=rng).to(device)

        # Drop some captions, so that the unconditional side of classifier-free guidance is trained as well.
        dropped = torch.rand(shape[:1], generator=rng) < self.parameters.caption_dropout
        told = ["" if drop else row.example.caption for row, drop in zip(rows, dropped, strict=True)]
        return [_Noised(*drawn) for drawn in zip(rows, latents, noise, timesteps, told, strict=True)]

    def _part(self, part: Sequence[_Noised]) -> torch.Tensor:
        base, schedule = self.base, self.base.noise_schedule
        latents, noise = torch.stack([one.latents for one in part]), torch.stack([one.noise for one in part])
        timesteps = torch.stack([one.timestep for one in part])
        noisy = schedule.add_noise(latents, noise, timesteps).contiguous(memory_format=torch.channels_last)

        # The target is the image's noise or velocity, or what the base predicts without the adapter.
        target = prediction_target(schedule, latents, noise, timesteps)
        if kept := [index for index, one in enumerate(part) if one.row.of_base]:
            with torch.no_grad(), switched_off(self.layers):
                of_base = self._predict(noisy[kept], timesteps[kept], [part[index] for index in kept], self.base_captions)
            target = target.index_copy(0, torch.tensor(kept, device=target.device), of_base.float())

        # Predict, and weight the squared error by timestep and share.
        errors = (self._predict(noisy, timesteps, part, self.captions).float() - target).square().mean(dim=(1, 2, 3))
        weights = min_snr_weights(schedule, timesteps, self.parameters.min_snr_gamma)
        return (errors * weights * torch.tensor([one.row.share for one in part], device=base.device)).sum()

    def _predict(self, noisy: torch.Tensor, timesteps: torch.Tensor, part: Sequence[_Noised], captions: Captions) -> torch.Tensor:
        base = self.base
        text = captions([one.caption for one in part])
        sizes = [one.row.example.sizes for one in part]
        with base.autocast():
            return base.pipeline.unet(
                noisy,
                timesteps,
                text.hidden,
                encoder_attention_mask=text.mask,
                added_cond_kwargs=added_conditions(base, text, sizes),
            ).sample
