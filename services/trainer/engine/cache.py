"""What is computed once before training: the images in the VAE's latent space."""

from typing import NamedTuple

import torch

from services.trainer.engine.base import Base
from services.trainer.engine.config import Job, TrainingImage
from services.trainer.engine.images import Sizes, load_image


class Example(NamedTuple):
    """An image in the VAE's latent space, as the mean and deviation [channels, height, width] of its distribution there."""

    mean: torch.Tensor
    deviation: torch.Tensor
    caption: str
    sizes: Sizes


@torch.no_grad()
def encode_image(base: Base, job: Job, image: TrainingImage) -> Example:
    """Read a training image, fit it to its bucket, and encode it. Raises BadImageError."""
    values, sizes = load_image(image.file, job.parameters.resolution, base.divisor_px, job.shrink_to_px)
    vae = base.pipeline.vae
    latents = vae.encode(values[None].to(base.device)).latent_dist
    shift, scale = vae.config.shift_factor or 0.0, vae.config.scaling_factor
    # Contiguous, as tensors from a checkpoint are: the memory layout decides the order of sums, and so their last bits.
    mean, deviation = ((latents.mean[0] - shift) * scale).contiguous(), (latents.std[0] * scale).contiguous()
    return Example(mean, deviation, image.caption, sizes)
