"""Training images as the recipe reads them: their rotation, their true size, and small ones."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from services.trainer.engine.images import Sizes, load_image


def write(file: Path, width: int, height: int, *, rotated: bool = False) -> Path:
    """Write an image whose left half is white; `rotated` is stored on its side, with the EXIF tag that says so."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2] = 255
    image, exif = Image.fromarray(pixels), Image.Exif()
    if rotated:
        image = image.transpose(Image.Transpose.ROTATE_90)
        exif[0x0112] = 6
    image.save(file, exif=exif)
    return file


@pytest.mark.parametrize("shrink_to_px", [None, 100])
def test_the_rotation_of_a_photo_is_kept(tmp_path: Path, shrink_to_px: int | None) -> None:
    plain = load_image(write(tmp_path / "plain.png", 300, 200), 128, 32, shrink_to_px)
    rotated = load_image(write(tmp_path / "rotated.png", 300, 200, rotated=True), 128, 32, shrink_to_px)

    assert rotated.sizes == plain.sizes
    torch.testing.assert_close(rotated.values, plain.values, atol=0.02, rtol=0)


def test_size_and_crop_are_those_of_the_image(tmp_path: Path) -> None:
    values, sizes = load_image(write(tmp_path / "wide.png", 900, 200), 128, 32)

    # Scaled to the bucket's height of 96, it is 432 wide; what is wider than 192 is cut off at both ends.
    assert sizes == Sizes(original=(200, 900), crop=(0, 120), target=(96, 192))
    assert values.shape == (3, 96, 192)


def test_a_small_image_is_trained_small(tmp_path: Path) -> None:
    values, sizes = load_image(write(tmp_path / "small.png", 300, 300), 1024, 32)

    assert values.shape == (3, 320, 320)
    assert sizes == Sizes(original=(300, 300), crop=(0, 0), target=(320, 320))


def test_a_smaller_shorter_edge_is_obeyed_before_the_bucket_is_chosen(tmp_path: Path) -> None:
    values, sizes = load_image(write(tmp_path / "large.png", 900, 900), 1024, 32, 512)

    assert values.shape == (3, 640, 640)
    assert sizes.original == (900, 900)
