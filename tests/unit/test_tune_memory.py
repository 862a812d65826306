"""What a step keeps in a GPU's memory: the figures that docs/api.md names, which trainer and scheduler share."""

import pytest

from shared.engines import Engine
from shared.tunes.memory import activation_bytes

GIB = 2**30


@pytest.mark.parametrize(("engine", "side_px", "gib"), [(Engine.SD15, 512, 0.7), (Engine.SDXL, 1024, 5.5)])
def test_activations_grow_with_the_images_and_with_the_pixels_of_each(engine: Engine, side_px: int, gib: float) -> None:
    assert activation_bytes(engine, 1, side_px) == pytest.approx(gib * GIB)
    assert activation_bytes(engine, 6, side_px) == pytest.approx(6 * gib * GIB)
    assert activation_bytes(engine, 1, side_px * 2) == pytest.approx(4 * gib * GIB)
