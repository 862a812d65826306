"""Training images as pixels: each is fitted to a bucket near its own aspect ratio, so that none is distorted or padded."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from services.trainer.engine.errors import BadImageError
from shared.tunes.buckets import bucket


class Sizes(NamedTuple):
    """What SDXL is told about an image's size (Podell et al. 2023, section 2.2), in pixels; SD 1.5 does not use it."""

    original: tuple[int, int]
    """Height and width of the image as it was uploaded."""
    crop: tuple[int, int]
    """How much was cut off at the top and at the left."""
    target: tuple[int, int]
    """Height and width at which it is trained."""


class Pixels(NamedTuple):
    """An image as float [3, height, width] in -1..1, and its sizes."""

    values: torch.Tensor
    sizes: Sizes


def load_image(file: Path, resolution_px: int, divisor_px: int, shrink_to_px: int | None = None) -> Pixels:
    """Return the image, scaled to cover its bucket (`shared.tunes.buckets`) and cropped to its centre.

    An image whose shorter edge is above `shrink_to_px` is scaled down to it first. Raises BadImageError.
    """
    try:
        with Image.open(file) as opened:
            # Before anything else: sides and crop mean the image as it is shown.
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        msg = f"files: training image {file.stem} cannot be read ({error}); upload it again as PNG or JPEG and start a new tune"
        raise BadImageError(msg) from error
    original = (image.height, image.width)
    if shrink_to_px and min(image.size) > shrink_to_px:
        image = _scaled(image, shrink_to_px / min(image.size))
    width, height = bucket(image.width, image.height, resolution_px, divisor_px)
    covering = _scaled(image, max(width / image.width, height / image.height))
    left, top = (covering.width - width) // 2, (covering.height - height) // 2
    fitted = covering.crop((left, top, left + width, top + height))
    values = torch.from_numpy(np.asarray(fitted).copy()).permute(2, 0, 1).float().div_(127.5).sub_(1.0)
    return Pixels(values, Sizes(original, (top, left), (height, width)))


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
