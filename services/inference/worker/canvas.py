"""The image that a request starts from, its mask, and how the drawn part is pasted back.

All of it has the size asked for. Only the box that the model sees is scaled to the size that the model draws at.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from services.inference.inputs import Start
from shared.errors import InvalidError

_WHITE = 255
_HALF = 128
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Canvas:
    """An image to start from, at the size asked for. Without a mask all of it is redrawn."""

    original: Image.Image
    source: Image.Image
    """What the model starts from: the original; for outpainting, with the masked area filled."""
    mask: Image.Image | None
    """White where it is painted and black elsewhere, without grey."""
    box: Box
    """The part that the model sees: left, upper, right, lower."""

    def model_input(self, width: int, height: int) -> tuple[Image.Image, Image.Image | None]:
        """Return source and mask of the box, at the size that the model draws at."""
        source = scaled(self.source.crop(self.box), width, height)
        if self.mask is None:
            return source, None
        # A scaled pixel that is only partly white is painted as well.
        mask = self.mask.crop(self.box).resize((width, height), Image.Resampling.BOX).point(lambda level: _WHITE if level else 0)
        return source, mask

    def composed(self, drawn: Image.Image) -> Image.Image:
        """Return the image with the drawn part in its place; outside the mask every pixel is the original's."""
        left, upper, right, lower = self.box
        drawn = scaled(drawn, right - left, lower - upper)
        if self.mask is None:
            return drawn
        image = self.original.copy()
        image.paste(drawn, (left, upper), self.mask.crop(self.box))
        return image


def prepare(start: Start, images: Mapping[str, bytes], width: int, height: int) -> Canvas:
    """Return the canvas of a request, `width` by `height` pixels. Raises InvalidError if there is nothing to paint."""
    image = opened(images[start.image.key])
    whole = (0, 0, width, height)
    if start.mask is None and not start.outpainting:
        image = fitted(image, width, height)
        return Canvas(image, image, None, whole)
    if start.mask is None:
        image, mask = _centred(image, width, height)
    else:
        image = fitted(image, width, height)
        mask = fitted(opened(images[start.mask.key]), width, height).convert("L")
        mask = mask.point([0] * _HALF + [_WHITE] * (_WHITE + 1 - _HALF))
    painted = mask.getbbox()
    if painted is None:
        msg = (
            "mask_image: no pixel is white, so there is nothing to paint; make the part to paint white"
            if start.mask
            else "outpainting: init_image fills the whole image; send mask_image, or ask for another size"
        )
        raise InvalidError(msg)
    source = _filled(image, mask) if start.outpainting else image
    return Canvas(image, source, mask, _around(painted, start.full_res_padding, width, height) if start.full_res else whole)


def opened(data: bytes) -> Image.Image:
    """Return an image that the API has cleaned, as RGB."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def fitted(image: Image.Image, width: int, height: int) -> Image.Image:
    """Return the image scaled to cover a size and cropped evenly to it."""
    return image if image.size == (width, height) else ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)


def scaled(image: Image.Image, width: int, height: int) -> Image.Image:
    """Return the image scaled to a size, or the image itself if it has that size."""
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)


def _centred(image: Image.Image, width: int, height: int) -> tuple[Image.Image, Image.Image]:
    """Return the image in the middle of a larger one, and a mask of the area around it."""
    image = ImageOps.contain(image, (width, height)) if image.width > width or image.height > height else image
    place = ((width - image.width) // 2, (height - image.height) // 2)
    larger, mask = Image.new("RGB", (width, height)), Image.new("L", (width, height), _WHITE)
    larger.paste(image, place)
    mask.paste(0, (*place, place[0] + image.width, place[1] + image.height))
    return larger, mask


def _filled(image: Image.Image, mask: Image.Image) -> Image.Image:
    """Give each masked pixel the colour of the nearest unmasked one: noise alone does not remove a black border."""
    painted = np.asarray(mask) > 0
    if painted.all():
        return image
    nearest = ndimage.distance_transform_edt(painted, return_distances=False, return_indices=True)
    return Image.fromarray(np.asarray(image)[tuple(nearest)])


def _around(painted: Box, padding: int, width: int, height: int) -> Box:
    """Return the smallest box in the image's aspect that holds the painted area and, where there is room, the padding."""
    left, upper = max(0, painted[0] - padding), max(0, painted[1] - padding)
    right, lower = min(width, painted[2] + padding), min(height, painted[3] + padding)
    scale = max((right - left) / width, (lower - upper) / height)
    wide, high = min(width, round(width * scale)), min(height, round(height * scale))
    left = min(max(0, (left + right - wide) // 2), width - wide)
    upper = min(max(0, (upper + lower - high) // 2), height - high)
    return left, upper, left + wide, upper + high
