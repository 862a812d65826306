"""What is drawn over: the picture that a request starts from, its mask, and how the result goes back into it.

All of it happens at the size asked for; only the region that is painted is scaled to the size that the model draws at.
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
    """A picture to start from at the size asked for. Without a mask all of it is drawn anew."""

    original: Image.Image
    ground: Image.Image
    """What the model starts from: the original, with the area to paint filled in for outpainting."""
    mask: Image.Image | None
    """White where it is painted, black elsewhere, nothing in between."""
    box: Box
    """The part that the model sees: left, upper, right, lower."""

    def seen(self, width: int, height: int) -> tuple[Image.Image, Image.Image | None]:
        """Return ground and mask of the part that the model sees, at the size that it draws at."""
        ground = scaled(self.ground.crop(self.box), width, height)
        if self.mask is None:
            return ground, None
        # A pixel that is to be painted only in part is painted.
        mask = self.mask.crop(self.box).resize((width, height), Image.Resampling.BOX).point(lambda level: _WHITE if level else 0)
        return ground, mask

    def finished(self, drawn: Image.Image) -> Image.Image:
        """Return the picture with what was drawn in its place; outside the mask every pixel is the original's."""
        left, upper, right, lower = self.box
        drawn = scaled(drawn, right - left, lower - upper)
        if self.mask is None:
            return drawn
        picture = self.original.copy()
        picture.paste(drawn, (left, upper), self.mask.crop(self.box))
        return picture


def prepare(start: Start, images: Mapping[str, bytes], width: int, height: int) -> Canvas:
    """Return the canvas of a request, `width` by `height` pixels. Raises InvalidError where there is nothing to paint."""
    picture = opened(images[start.image.key])
    whole = (0, 0, width, height)
    if start.mask is None and not start.outpainting:
        picture = fitted(picture, width, height)
        return Canvas(picture, picture, None, whole)
    if start.mask is None:
        picture, mask = _centred(picture, width, height)
    else:
        picture = fitted(picture, width, height)
        mask = fitted(opened(images[start.mask.key]), width, height).convert("L")
        mask = mask.point([0] * _HALF + [_WHITE] * (_WHITE + 1 - _HALF))
    painted = mask.getbbox()
    if painted is None:
        msg = (
            "mask_image: no pixel is white, so there is nothing to paint"
            if start.mask
            else "outpainting: init_image fills the whole picture; send mask_image, or ask for another size"
        )
        raise InvalidError(msg)
    ground = _filled(picture, mask) if start.outpainting else picture
    return Canvas(picture, ground, mask, _around(painted, start.full_res_padding, width, height) if start.full_res else whole)


def opened(data: bytes) -> Image.Image:
    """Return a picture that the API has cleaned, as RGB."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scale a picture to cover a size, and cut off evenly what stands over."""
    return picture if picture.size == (width, height) else ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)


def scaled(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scale a picture to a size; one that has it is returned as it is."""
    return picture if picture.size == (width, height) else picture.resize((width, height), Image.Resampling.LANCZOS)


def _centred(picture: Image.Image, width: int, height: int) -> tuple[Image.Image, Image.Image]:
    """Return the picture in the middle of a larger one, and the mask of what is around it."""
    picture = ImageOps.contain(picture, (width, height)) if picture.width > width or picture.height > height else picture
    place = ((width - picture.width) // 2, (height - picture.height) // 2)
    canvas, mask = Image.new("RGB", (width, height)), Image.new("L", (width, height), _WHITE)
    canvas.paste(picture, place)
    mask.paste(0, (*place, place[0] + picture.width, place[1] + picture.height))
    return canvas, mask


def _filled(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """Give each pixel to be painted the colour of the nearest one that is kept: noise alone takes away no black border."""
    painted = np.asarray(mask) > 0
    if painted.all():
        return picture
    nearest = ndimage.distance_transform_edt(painted, return_distances=False, return_indices=True)
    return Image.fromarray(np.asarray(picture)[tuple(nearest)])


def _around(painted: Box, padding: int, width: int, height: int) -> Box:
    """Return the smallest box of the picture's aspect that holds what is painted and a margin, as far as there is room."""
    left, upper = max(0, painted[0] - padding), max(0, painted[1] - padding)
    right, lower = min(width, painted[2] + padding), min(height, painted[3] + padding)
    scale = max((right - left) / width, (lower - upper) / height)
    wide, high = min(width, round(width * scale)), min(height, round(height * scale))
    left = min(max(0, (left + right - wide) // 2), width - wide)
    upper = min(max(0, (upper + lower - high) // 2), height - high)
    return left, upper, left + wide, upper + high
