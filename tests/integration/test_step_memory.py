"""The one memory estimate agrees with what is counted on the published configurations, with fake tensors."""

import pytest

from shared.engines import Engine
from shared.tunes.memory import PUBLISHED, Load, need
from tests.support.step_memory import count_coding, count_step

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
SIDES = {Engine.SD15: 512, Engine.SDXL: 1024}


def load(engine: Engine, *, checkpointing: bool = False) -> Load:
    return Load(
        engine=engine,
        weights=PUBLISHED[engine],
        rows=1,
        resolution_px=SIDES[engine],
        rank=16,
        samples=True,
        checkpointing=checkpointing,
    )


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("engine", SIDES, ids=["sd15", "sdxl"])
def test_the_estimate_of_a_step_is_what_is_counted(engine: Engine, *, checkpointing: bool) -> None:
    estimated, counted = (
        need(load(engine, checkpointing=checkpointing)),
        count_step(engine, SIDES[engine], 1, checkpointing=checkpointing),
    )

    assert estimated.base == counted["unet"]
    # Weight, gradient and two moments; the counted adapter is the weights alone.
    assert estimated.adapter == pytest.approx(4 * counted["adapter"], rel=0.02)
    # The counted peak has the gradients, too.
    assert estimated.activations == pytest.approx(counted["peak"] - counted["adapter"], rel=0.1)


@pytest.mark.parametrize("engine", SIDES, ids=["sd15", "sdxl"])
def test_the_estimate_of_encoding_and_drawing_is_what_is_counted(engine: Engine) -> None:
    estimated, counted = need(load(engine)), count_coding(SIDES[engine])

    weights = PUBLISHED[engine]
    whole = 2 * (weights.unet + weights.text) + 4 * weights.vae
    assert estimated.encoding - whole == pytest.approx(counted["encoding"], rel=0.1)
    assert estimated.drawing - (whole - 2 * weights.text) == pytest.approx(counted["decoding"], rel=0.1)
