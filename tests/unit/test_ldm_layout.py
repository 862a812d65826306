"""The tensors of Stable Diffusion's own layout have as many parameters as the published models."""

from math import prod

import pytest

from shared.formats import ldm_layout
from shared.formats.ldm_layout import Shapes, TextShape, UNetShape, VaeShape

SD15 = UNetShape(4, (320, 640, 1280, 1280), 2, (1, 1, 1, 0), 1, 768, None, False)
REFINER = UNetShape(4, (384, 768, 1536, 1536), 2, (0, 4, 4, 0), 4, 1280, 2560, True)
SDXL = UNetShape(4, (320, 640, 1280), 2, (0, 2, 10), 10, 2048, 2816, True)


@pytest.mark.parametrize(
    ("shapes", "parameters"),
    [
        (ldm_layout.unet(SD15), 859_520_964),
        (ldm_layout.unet(SDXL), 2_567_463_684),
        (ldm_layout.unet(REFINER), 2_259_526_660),
        (ldm_layout.vae(VaeShape(4, (128, 256, 512, 512), 2, True, True)), 83_653_863),
        (ldm_layout.clip(TextShape(49_408, 77, 768, 3072, 12)), 123_060_480),
        (ldm_layout.open_clip(TextShape(49_408, 77, 1280, 5120, 32)), 694_659_840),
    ],
)
def test_the_full_size_models_have_their_published_number_of_parameters(shapes: Shapes, parameters: int) -> None:
    assert sum(prod(shape) for shape in shapes.values()) == parameters


def test_differences_are_named() -> None:
    found = {"a": (2, 2), "c": (1,)}

    assert sorted(ldm_layout.differences({"a": (2,), "b": (3,)}, found)) == [
        "'a' has the shape [2, 2]; by the other tensors it must have [2]",
        "it has no 'b'",
        "it holds 'c', which does not belong to it",
    ]
