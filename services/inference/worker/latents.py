"""Images as latents and back: the two ways through a VAE, and the precision that it is computed in."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from shared.errors import InvalidError
from shared.telemetry import get_logger

log = get_logger(__name__)


class Precision:
    """The precision of each VAE: the faster one, until a result is not finite, and float32 from then on.

    The weights stay in float32, and autocast converts them for one call. So a call that fails leaves the VAE as it was, and the
    repeated call loses nothing. The VAEs of SD 1.5 and SDXL overflow in float16, some checkpoints' only in a part of an image.
    """

    def __init__(self, fast: torch.dtype | None) -> None:
        self.fast = fast
        self._overflowed: set[str] = set()

    def run(self, name: str, device: torch.device, call: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return the result of a call of the VAE in float32. Raises InvalidError if it is not finite in float32 either."""
        if self.fast is not None and name not in self._overflowed:
            with torch.autocast(device.type, self.fast):
                result = call()
            if result.isfinite().all():
                return result.float()
            self._overflowed.add(name)
            log.warning("vae.overflowed", vae=name, precision=str(self.fast))
        result = call()
        if not result.isfinite().all():
            msg = "vae: its results are not finite, also in float32; choose another VAE or checkpoint"
            raise InvalidError(msg, loc=("body", "vae"))
        return result


class Codec:
    """A VAE, whose weights are in float32, and its name."""

    def __init__(self, vae: Any, name: str, precision: Precision) -> None:
        self._vae = vae
        self._name = name
        self._precision = precision
        self._device: torch.device = vae.device
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)
        """Pixels along a side of a latent."""
        self.channels: int = vae.config.latent_channels

    def encode(self, image: Image.Image, generators: Sequence[torch.Generator]) -> torch.Tensor:
        """Return latents of the image, one drawn with each generator, as the UNet reads them."""
        pixels = (2.0 * tensor_of(image) - 1.0).to(self._device)
        parameters = self._precision.run(self._name, self._device, lambda: self._vae.encode(pixels).latent_dist.parameters)
        drawn = torch.cat([DiagonalGaussianDistribution(parameters).sample(generator) for generator in generators])
        mean, deviation = self._normal(drawn)
        return (drawn - mean) * self._vae.config.scaling_factor / deviation

    def decode(self, latents: torch.Tensor) -> list[Image.Image]:
        """Return the images. They pass the VAE one at a time: it needs far more memory than the UNet."""
        mean, deviation = self._normal(latents)
        scaled = latents * deviation / self._vae.config.scaling_factor + mean
        return [self._decode(one) for one in scaled.split(1)]

    def _decode(self, latents: torch.Tensor) -> Image.Image:
        decoded = self._precision.run(self._name, self._device, lambda: self._vae.decode(latents, return_dict=False)[0])
        pixels = (decoded[0] * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 0).cpu().numpy()
        return Image.fromarray((pixels * 255).round().astype(np.uint8))

    def _normal(self, latents: torch.Tensor) -> tuple[Any, Any]:
        """Return the mean and the deviation of the VAE's latents, which only a few checkpoints state."""
        config = self._vae.config
        mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean is None or deviation is None:
            return 0.0, 1.0
        return tuple(torch.tensor(values).view(1, -1, 1, 1).to(latents) for values in (mean, deviation))  # pyright: ignore[reportReturnType] - two values


def tensor_of(image: Image.Image) -> torch.Tensor:
    """Return the image as a tensor [1, channels, height, width] from 0 to 1."""
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255.0)
    return pixels[None, None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)[None]  # noqa: PLR2004 - a grey image has 2 axes


def mask_of(mask: Image.Image, height: int, width: int) -> torch.Tensor:
    """Return a mask of pixels as a mask [1, 1, height, width] of latents: 1 where it is painted."""
    painted = (tensor_of(mask.convert("L")) >= 0.5).float()  # noqa: PLR2004 - half of white
    return torch.nn.functional.interpolate(painted, size=(height, width))
