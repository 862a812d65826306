"""How much an image shows a subject: the subject, cut out of its background, is laid over the image where it fits best."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

Array = np.ndarray
_SIDE = 64
"""Images are compared at this many pixels square, the size at which the small checkpoints draw."""
_TURNS = (-14.0, -7.0, 0.0, 7.0, 14.0)
_SCALES = (0.8, 0.9, 1.0, 1.1)
_SHIFTS = range(-9, 10, 2)
_BLUR_PX = 1.2
"""Small enough to keep stripes apart, large enough to tolerate an outline that is a pixel off."""
_BACKGROUND_DISTANCE = 14.0
"""In CIELAB: pixels closer to the background than this belong to it. Two colours 2.3 apart are just distinguishable."""
_COLOUR_SCALE = 30.0
"""In CIELAB: colours this far apart count as 37 % (1/e) alike."""


@dataclass(frozen=True)
class Cutout:
    """A subject without its background, colours in CIELAB."""

    pixels: Array
    """(n, 2): row and column of each pixel of the subject, relative to the image's middle."""
    colours: Array
    """(n, 3)."""


def cutouts(images: Sequence[Image.Image]) -> list[Cutout]:
    """Cut the subject out of images of it on plain backgrounds, at each scale and turn that is tried."""
    made = []
    for image, scale, turn in product(images, _SCALES, _TURNS):
        around = image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX)
        size = round(_SIDE * scale)
        fill = around.getpixel((1, 1))
        assert isinstance(fill, tuple)
        scaled = around.rotate(turn, Image.Resampling.BICUBIC, fillcolor=fill).resize((size, size), Image.Resampling.LANCZOS)
        canvas = Image.new("RGB", (_SIDE, _SIDE), fill)
        canvas.paste(scaled, ((_SIDE - size) // 2, (_SIDE - size) // 2))
        lab = _blurred_lab(canvas)
        mask = _figure(lab)
        made.append(Cutout(np.argwhere(mask) - np.argwhere(mask).mean(0).round().astype(int), lab[mask]))
    return made


def likeness(image: Image.Image, subject: Sequence[Cutout]) -> float:
    """Return from 0 to 1 how well the best of the subject's cut-outs fits the image at its best place.

    The fit of a cut-out at a place is the mean, over its pixels, of how close the image's colour is to the subject's.
    """
    lab = _blurred_lab(image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX))
    shifts = np.array(list(product(_SHIFTS, _SHIFTS))) + _SIDE // 2
    return max(float(_fit(lab, cutout, shifts).max()) for cutout in subject)


def _fit(lab: Array, cutout: Cutout, shifts: Array) -> Array:
    rows, columns = np.moveaxis(cutout.pixels[None] + shifts[:, None], -1, 0).clip(0, _SIDE - 1)
    distance = np.linalg.norm(lab[rows, columns] - cutout.colours, axis=-1)
    return np.exp(-distance / _COLOUR_SCALE).mean(-1)


def _figure(lab: Array) -> Array:
    """Return the mask of the figure. The background is plain: its colour in each row is that of the row's ends."""
    ends = lab[:, [1, 2, -3, -2]]
    distance = np.linalg.norm(lab[:, :, None] - ends[:, None], axis=-1).min(axis=-1)
    regions: Any = ndimage.label(ndimage.binary_opening(distance > _BACKGROUND_DISTANCE))
    sizes = np.bincount(regions[0].ravel())[1:]
    filled: Any = ndimage.binary_fill_holes(regions[0] == 1 + int(np.argmax(sizes)))
    return filled


def _blurred_lab(image: Image.Image) -> Array:
    """Return CIELAB with white point D65 (IEC 61966-2-1, CIE 15), (64, 64, 3), blurred a little."""
    rgb = np.asarray(image, dtype=np.float64) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.moveaxis(linear @ to_xyz.T / (0.9505, 1.0, 1.089), -1, 0)
    fx, fy, fz = (np.where(v > (6 / 29) ** 3, np.cbrt(v), v / (3 * (6 / 29) ** 2) + 4 / 29) for v in (x, y, z))
    lab = np.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], axis=-1)
    return ndimage.gaussian_filter(lab, (_BLUR_PX, _BLUR_PX, 0))
