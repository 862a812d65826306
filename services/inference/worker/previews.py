"""Small images of unfinished latents, and thumbnails of finished images."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shared.engines import Engine

THUMBNAIL_PX = 384
_PREVIEW_PX = 128
_PREVIEW_BYTES = 4500
"""As a data URL of base64 that is 6 KiB."""
_QUALITIES = (80, 60, 40, 25)

_Factors = tuple[tuple[float, ...], ...]
# From latent channels to red, green and blue of 0 to 255, by channel, and the offset of each colour.
# SD 1.5: discuss.huggingface.co/t/decoding-latents-to-rgb-without-upscaling/23204, which gives -1 to 1.
_SD15: _Factors = ((38.0, 26.4, 26.5), (23.8, 36.5, 22.1), (-20.1, 24.1, 33.7), (-23.5, -34.6, -60.3))
_SD15_OFFSET = (127.5, 127.5, 127.5)
# SDXL: `latents_to_rgb` in diffusers' guide to callbacks (docs/source/en/using-diffusers/callback.md).
_SDXL: _Factors = ((60, 60, 60), (-60, -5, 10), (25, 15, -5), (-70, -50, -35))
_SDXL_OFFSET = (150, 140, 130)


def preview(latents: Any, engine: Engine) -> bytes:
    """Return a small JPEG of the first of a batch of latents: one pixel for each place, in the colours that it will about have.

    Latents of a checkpoint with other channels than four are shown in grey.
    """
    values: NDArray[np.float32] = np.asarray(latents[0].float().cpu())
    # The samplers with sigmas start with noise of up to 15 times the size that the decoder takes.
    values = values / max(1.0, float(values.std()))
    is_xl = engine is Engine.SDXL
    factors, offset = (_SDXL, _SDXL_OFFSET) if is_xl else (_SD15, _SD15_OFFSET)
    if len(values) == len(factors):
        colours = np.einsum("cyx,cr->yxr", values, np.asarray(factors)) + np.asarray(offset)
    else:
        colours = np.repeat((values.mean(axis=0) * 64 + 128)[..., None], 3, axis=2)
    image = Image.fromarray(np.nan_to_num(colours).clip(0, 255).astype(np.uint8))
    image.thumbnail((_PREVIEW_PX, _PREVIEW_PX))
    return _small(image)


def thumbnail(data: bytes) -> bytes:
    """Return a WebP of an encoded image of ours, with a longest edge of 384 px at most."""
    out = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        image.save(out, "WEBP", quality=80)
    return out.getvalue()


def _small(image: Image.Image) -> bytes:
    """Return a JPEG below the limit. Noise, with which drawing starts, compresses worst."""
    data = b""
    for quality in _QUALITIES:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        data = out.getvalue()
        if len(data) <= _PREVIEW_BYTES:
            return data
    return _small(image.reduce(2))
