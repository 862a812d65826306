"""Previews of unfinished latents, and thumbnails of finished images."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from services.inference.worker.previews import preview, thumbnail
from shared.engines import Engine


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.mark.parametrize("engine", [Engine.SD15, Engine.SDXL])
def test_a_bright_latent_is_brighter_than_a_dark_one(engine: Engine) -> None:
    bright = torch.tensor([1.0, 0, 0, 0]).reshape(1, 4, 1, 1).expand(1, 4, 16, 16)

    levels = [np.asarray(opened(preview(sign * bright, engine)).convert("L")).mean() for sign in (1, -1)]

    assert levels[0] > levels[1] + 40


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (128, 128), (192, 128)])
@pytest.mark.parametrize("sigma", [1.0, 14.6])
def test_noise_fits_into_an_event(size: tuple[int, int], sigma: float) -> None:
    noise = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0)) * sigma

    data = preview(noise.half(), Engine.SDXL)

    assert len(base64.b64encode(data)) <= 6 * 1024
    assert max(opened(data).size) <= 128


def test_strong_noise_is_not_shown_as_black_and_white() -> None:
    noise = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0)) * 14.6

    levels = np.asarray(opened(preview(noise, Engine.SD15)))

    assert np.mean((levels > 5) & (levels < 250)) > 0.8


def test_other_latents_are_shown_in_grey() -> None:
    channels = np.asarray(opened(preview(torch.rand(1, 16, 8, 8), Engine.SD15)).convert("RGB")).astype(int)

    assert np.ptp(channels, axis=2).max() <= 3


def test_a_latent_that_is_not_a_number_is_shown_all_the_same() -> None:
    assert opened(preview(torch.full((1, 4, 8, 8), float("nan")), Engine.SD15)).size == (8, 8)


def test_a_thumbnail_keeps_the_aspect_and_enlarges_nothing() -> None:
    out = io.BytesIO()
    Image.new("RGB", (1024, 512)).save(out, "PNG")
    small = io.BytesIO()
    Image.new("RGB", (64, 32)).save(small, "JPEG")

    assert [(opened(thumbnail(one.getvalue())).size) for one in (out, small)] == [(384, 192), (64, 32)]
    assert opened(thumbnail(out.getvalue())).format == "WEBP"
