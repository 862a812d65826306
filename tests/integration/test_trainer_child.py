"""The real training process under the real trainer, on a small random model."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from safetensors.torch import load

from services.trainer.child_process import CHILD_COMMAND
from services.trainer.settings import TrainerSettings
from shared.blobs.store import Blobs
from shared.engines import Engine
from shared.settings import ServiceSettings
from shared.states import TuneState
from tests.support.tiny_pipelines import save_tiny_pipeline
from tests.support.trainer_world import TrainerWorld, make_world
from tests.support.waiting import eventually

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

STEPS = 60
EVERY_STEPS = 10
SMALL = {"class_images": 2, "class_sampler_steps": 2, "rank": 4, "batch_size": 2, "prior_batch_size": 1}


@pytest.fixture
async def world(
    database_url: str, blobs: Blobs, make_settings: Callable[..., ServiceSettings], tmp_path: Path
) -> AsyncIterator[TrainerWorld]:
    settings = make_settings(
        TrainerSettings,
        poll_s=0.1,
        progress_every_s=0.1,
        checkpoint_every_steps=EVERY_STEPS,
        device="cpu",
        drain_s=60.0,
    )
    assert isinstance(settings, TrainerSettings)
    world = await make_world(database_url, blobs, settings, tmp_path)
    base = tmp_path / "random-sd15"
    save_tiny_pipeline(Engine.SD15, base, prediction_type="v_prediction")
    await world.use_base(base)
    yield world
    await world.database.close()


def images() -> list[bytes]:
    encoded: list[bytes] = []
    for number in range(3):
        file = BytesIO()
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, "PNG")
        encoded.append(file.getvalue())
    return encoded


@pytest.mark.timeout(600)
async def test_a_tune_that_was_stopped_half_way_has_the_weights_of_an_uninterrupted_one(world: TrainerWorld) -> None:
    whole = await world.queue_tune(steps=STEPS, images=images(), parameters=dict(SMALL))
    async with world.trainer(command=CHILD_COMMAND):
        await world.until(whole, TuneState.PUBLISHING, bound_s=240)
        parts = await world.queue_tune(steps=STEPS, images=images(), parameters=dict(SMALL))
        await world.until(parts, TuneState.TRAINING, where=lambda tune: tune.step > 0, bound_s=240)
    stopped = await world.tune(parts)
    assert (stopped.state, stopped.attempt) == (TuneState.QUEUED, 0)
    assert 0 < stopped.step < STEPS
    async with world.trainer(command=CHILD_COMMAND):
        tune = await world.until(parts, TuneState.PUBLISHING, bound_s=240)
    assert tune.attempt == 1
    assert tune.steps_run == STEPS
    expected, resumed = load(await world.lora(whole)), load(await world.lora(parts))
    assert expected.keys() == resumed.keys()
    assert all((expected[name] == resumed[name]).all() for name in expected)


@pytest.mark.timeout(300)
async def test_a_terminated_trainer_releases_its_tune_and_exits_with_0(world: TrainerWorld, tmp_path: Path) -> None:
    tune_id = await world.queue_tune(steps=5000, images=images(), parameters=dict(SMALL))
    env = os.environ | {"TUNESMITH_HTTP_PORT": "0", "TUNESMITH_DEVICE": "cpu"}
    with (tmp_path / "log").open("wb") as out:
        trainer = subprocess.Popen([sys.executable, "-m", "services.trainer"], env=env, stdout=out, stderr=out)
    try:
        await world.until(tune_id, TuneState.TRAINING, where=lambda tune: tune.step > 0, bound_s=240)
        [child] = psutil.Process(trainer.pid).children()
        trainer.send_signal(signal.SIGTERM)

        async def ended() -> bool | None:
            return None if trainer.poll() is None else True

        await eventually(ended)
    finally:
        trainer.kill()
        trainer.wait(10)
    assert trainer.returncode == 0, (tmp_path / "log").read_text()
    assert not child.is_running()
    tune = await world.tune(tune_id)
    assert (tune.state, tune.attempt) == (TuneState.QUEUED, 0)
    assert tune.step > 0
