"""The memory that a draw needs besides the weights."""

from typing import Any

from shared.models.checkpoints import Components

_DECODED = 3
"""Tensors of the VAE's last level, in float32, that are alive at its peak: input, norm and output of a convolution."""
_PREDICTED = 40
"""Tensors of the UNet's first level that have the size of all that is alive at its peak, most of it for skip connections."""


def activation_bytes(components: Components, size: tuple[int, int], images: int) -> int:
    """Return what a batch needs at its peak: in the UNet with guidance, or in the VAE, which decodes one image at a time."""
    unet: Any = components.unet
    vae: Any = components.vae
    pixels = size[0] * size[1]
    widths = vae.config.block_out_channels
    decoded = _DECODED * pixels * widths[min(1, len(widths) - 1)] * 4
    latents = pixels // 4 ** (len(widths) - 1)
    return max(decoded, _PREDICTED * 2 * images * latents * unet.config.block_out_channels[0] * unet.dtype.itemsize)
