"""Training images as pixels: each is fitted to a bucket near its own aspect ratio, so that none is distorted or padded."""

from pathlib import Path

import numpy as np
import torch
from diffusers.training_utils import find_nearest_bucket, generate_aspect_ratio_buckets
from PIL import Image, ImageOps, UnidentifiedImageError

from services.trainer.engine.errors import BadImageError

_JPEG_QUALITY = 95


def shrink(file: Path, shorter_edge_px: int) -> None:
    """Scale an image file down to this shorter edge, in place; a smaller image stays as it is. Raises BadImageError."""
    try:
        with Image.open(file) as opened:
            size, kind = opened.size, opened.format
            if min(size) <= shorter_edge_px:
                return
            scale = shorter_edge_px / min(size)
            smaller = opened.resize((round(size[0] * scale), round(size[1] * scale)), Image.Resampling.LANCZOS)
        smaller.save(file, kind, **({"quality": _JPEG_QUALITY, "subsampling": 0} if kind == "JPEG" else {}))
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from error


def load_image(file: Path, resolution_px: int, divisor_px: int) -> torch.Tensor:
    """Return the image as float [3, height, width] in -1..1, scaled to cover its bucket and cropped to its centre.

    Buckets have sides that `divisor_px` divides, and about `resolution_px` squared pixels; the image gets the one that is
    nearest in aspect ratio. Raises BadImageError.
    """
    buckets = generate_aspect_ratio_buckets(resolution_px, divisor_px)
    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from error
    height, width = buckets[find_nearest_bucket(image.height, image.width, buckets)]
    fitted = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(fitted).copy()).permute(2, 0, 1).float().div_(127.5).sub_(1.0)


def _unreadable(file: Path, error: Exception) -> BadImageError:
    msg = f"files: training image {file.stem} cannot be read ({error}); upload it again as PNG or JPEG and start a new tune"
    return BadImageError(msg)
