"""The image that a canny ControlNet follows: white edges on black (Canny 1986)."""

import numpy as np
from PIL import Image
from skimage.feature import canny

_SIGMA_PX = 1.0


def canny_edges(image: Image.Image) -> Image.Image:
    """Return the edges of an image, as RGB of the same size. ControlNets are trained and served with the same function."""
    grey = np.asarray(image.convert("L"), dtype=np.float32) / 255
    edges = canny(grey, sigma=_SIGMA_PX)
    return Image.fromarray(edges.astype(np.uint8) * 255).convert("RGB")
