"""Pillow with all that reading and writing images needs, for the confined child, which can open no module later.

A service never imports this module.
"""

from typing import Any

from PIL import (
    AvifImagePlugin,
    Image,
    ImageCms,
    ImageFilter,
    ImageOps,
    ImageStat,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

pi_heif: Any
try:
    import pi_heif
except ImportError:
    pi_heif = None

# It registers the formats, and looks for modules of those that are not registered yet.
Image.preinit()
# The confined child may have one thread.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

FORMATS = ["PNG", "JPEG", "WEBP", "AVIF"]
"""Those that are read; HEIF only where the package pi-heif is installed, whose licence (LGPL) not everybody wants."""
if pi_heif is not None:
    pi_heif.options.DECODE_THREADS = 1
    pi_heif.register_heif_opener()
    FORMATS.append("HEIF")

__all__ = [
    "FORMATS",
    "AvifImagePlugin",
    "Image",
    "ImageCms",
    "ImageFilter",
    "ImageOps",
    "ImageStat",
    "JpegImagePlugin",
    "MpoImagePlugin",
    "PngImagePlugin",
    "TiffImagePlugin",
    "UnidentifiedImageError",
    "WebPImagePlugin",
]
