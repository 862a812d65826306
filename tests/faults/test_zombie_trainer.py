"""One published result per tune (promise 2): a trainer that wakes after its lease has expired changes nothing."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
from sqlalchemy import select

from deploy.local.paths import PROJECT
from services.trainer.settings import TrainerSettings
from shared.blobs.store import Blobs
from shared.database.tables import Blob
from shared.settings import ServiceSettings
from shared.states import TuneState
from shared.tunes import leases
from tests.support.trainer_world import TrainerWorld, make_world
from tests.support.waiting import eventually

EVERY_STEPS = 4
_BOUND_S = 120.0
QUICK = {"lease_s": 5.0, "renew_every_s": 0.5, "poll_s": 0.05, "progress_every_s": 0.1, "checkpoint_every_steps": EVERY_STEPS}


@pytest.fixture
async def world(
    database_url: str, blobs: Blobs, make_settings: Callable[..., ServiceSettings], tmp_path: Path
) -> AsyncIterator[TrainerWorld]:
    settings = make_settings(TrainerSettings, device="cpu", work_dir=tmp_path / "second", **QUICK)
    assert isinstance(settings, TrainerSettings)
    world = await make_world(database_url, blobs, settings, tmp_path)
    yield world
    await world.database.close()


async def test_a_trainer_that_sleeps_past_its_lease_publishes_nothing(world: TrainerWorld, tmp_path: Path) -> None:
    tune_id = await world.queue_tune(steps=12, trigger_word="hold@7")
    work_dir = tmp_path / "zombie"
    env = os.environ | {"TUNESMITH_HTTP_PORT": "0", "TUNESMITH_DEVICE": "cpu", "TUNESMITH_WORK_DIR": str(work_dir)}
    env |= {f"TUNESMITH_{name.upper()}": str(value) for name, value in QUICK.items()}
    with (tmp_path / "log").open("wb") as out:
        zombie = subprocess.Popen(
            [sys.executable, "-m", "tests.support.stub_trainer"], cwd=PROJECT, env=env, stdout=out, stderr=out
        )
    try:
        await world.until(tune_id, TuneState.TRAINING, where=lambda tune: tune.step >= EVERY_STEPS, bound_s=_BOUND_S)

        async def checkpointed() -> bool | None:
            return True if "tune.checkpointed" in await world.event_types(tune_id) else None

        await eventually(checkpointed, _BOUND_S)
        [child] = psutil.Process(zombie.pid).children()
        zombie.send_signal(signal.SIGSTOP)
        # Its child goes on: the trainer finds a finished LoRA when it wakes.
        (work_dir / "jobs" / f"{tune_id}-1" / "go").touch()
        reaper = asyncio.create_task(reap(world))
        async with world.trainer():
            tune = await world.until(tune_id, TuneState.PUBLISHING, bound_s=_BOUND_S)
        reaper.cancel()
        before = (tune.version, tune.lora_key, await world.lora(tune_id), await world.event_types(tune_id))
        assert (tune.attempt, tune.lora_key) == (2, f"tunes/{tune_id}/2/lora.safetensors")

        zombie.send_signal(signal.SIGCONT)

        async def let_go() -> bool | None:
            return None if child.is_running() and child.status() != psutil.STATUS_ZOMBIE else True

        await eventually(let_go, _BOUND_S)
        zombie.terminate()
        await asyncio.to_thread(zombie.wait, _BOUND_S)
    finally:
        zombie.kill()
        zombie.wait(10)

    tune = await world.tune(tune_id)
    after = (tune.version, tune.lora_key, await world.lora(tune_id), await world.event_types(tune_id))
    assert after == before
    async with world.database.begin() as session:
        own = await session.scalars(select(Blob.state).where(Blob.key == f"tunes/{tune_id}/1/lora.safetensors"))
        assert "committed" not in own.all(), "what it may have stored has no owner, and is collected"


async def reap(world: TrainerWorld) -> None:
    """Take expired leases until cancelled, as the scheduler does."""
    while True:
        async with world.database.begin() as session:
            await leases.reap(session)
        await asyncio.sleep(0.1)
