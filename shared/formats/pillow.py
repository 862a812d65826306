"""Pillow with all that reading and writing PNG and JPEG needs, for the confined child, which can open no module later.

A service never imports this module.
"""

from PIL import (
    Image,
    ImageFilter,
    ImageOps,
    ImageStat,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
)

# It registers the formats, and looks for modules of those that are not registered yet.
Image.preinit()

__all__ = [
    "Image",
    "ImageFilter",
    "ImageOps",
    "ImageStat",
    "JpegImagePlugin",
    "MpoImagePlugin",
    "PngImagePlugin",
    "TiffImagePlugin",
    "UnidentifiedImageError",
]
