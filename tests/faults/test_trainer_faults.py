"""Preemption resumes (promise 10) and crashes resume (promise 11), with a child that trains a hash chain."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from services.trainer.service import TrainerService
from services.trainer.settings import TrainerSettings
from shared.blobs.store import Blobs
from shared.errors import UnavailableError
from shared.settings import ServiceSettings
from shared.states import TuneState
from shared.tunes import leases
from tests.support.trainer_world import STUB_CHILD, TrainerWorld, make_world
from tests.support.waiting import eventually

EVERY_STEPS = 4
STEPS = 40


@pytest.fixture
async def world(
    database_url: str, blobs: Blobs, make_settings: Callable[..., ServiceSettings], tmp_path: Path
) -> AsyncIterator[TrainerWorld]:
    settings = make_settings(
        TrainerSettings,
        poll_s=0.05,
        renew_every_s=0.2,
        progress_every_s=0.1,
        checkpoint_every_steps=EVERY_STEPS,
        device="cpu",
        lease_s=1.0,
    )
    assert isinstance(settings, TrainerSettings)
    world = await make_world(database_url, blobs, settings, tmp_path)
    yield world
    await world.database.close()


async def uninterrupted(world: TrainerWorld) -> bytes:
    tune_id = await world.queue_tune(steps=STEPS)
    async with world.trainer():
        await world.until(tune_id, TuneState.PUBLISHING)
    return await world.lora(tune_id)


async def reap(world: TrainerWorld) -> None:
    """Take expired leases until cancelled, as the scheduler does."""
    while True:
        async with world.database.begin() as session:
            await leases.reap(session)
        await asyncio.sleep(0.1)


async def test_preemption_resumes_and_costs_no_attempt(world: TrainerWorld) -> None:
    expected = await uninterrupted(world)
    tune_id = await world.queue_tune(steps=STEPS, trigger_word="pause@6,15,27")
    for _ in range(3):
        async with world.trainer():
            await world.until(tune_id, TuneState.TRAINING)
        tune = await world.tune(tune_id)
        assert (tune.state, tune.attempt) == (TuneState.QUEUED, 0)
    async with world.trainer():
        tune = await world.until(tune_id, TuneState.PUBLISHING)
    assert tune.attempt == 1
    assert tune.steps_run <= STEPS + 3 * EVERY_STEPS
    assert await world.lora(tune_id) == expected


@pytest.mark.parametrize("phase", ["download", "step", "checkpoint", "publish"])
async def test_a_killed_child_or_parent_costs_an_attempt_and_changes_nothing(
    world: TrainerWorld, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = await uninterrupted(world)
    place = {"download": "get_file", "checkpoint": "put_file", "publish": "put_file"}.get(phase)
    trouble = "crash@17" if phase == "step" else "sks1"
    died: list[asyncio.Task[None]] = []
    tune_id = await world.queue_tune(steps=STEPS, trigger_word=trouble)
    if place:
        original = getattr(world.blobs, place)
        wanted = {"download": "base", "checkpoint": f"{tune_id}/1/checkpoint", "publish": f"{tune_id}/1/lora"}[phase]

        async def vanish(key: str, *args: object, **kwargs: object) -> object:
            if phase == "download" or wanted in key:
                # As if the process were killed here: the attempt never gets any further.
                died[0].cancel()
                await asyncio.Event().wait()
            return await original(key, *args, **kwargs)

        monkeypatch.setattr(world.blobs, place, vanish)
        doomed = TrainerService(world.database, world.blobs, world.settings, child_command=STUB_CHILD)
        died.append(asyncio.create_task(doomed.run()))
        with contextlib.suppress(asyncio.CancelledError):
            await died[0]
        monkeypatch.undo()
        assert (await world.tune(tune_id)).lease_token is not None
    reaper = asyncio.create_task(reap(world))
    async with world.trainer():
        tune = await world.until(tune_id, TuneState.PUBLISHING)
    reaper.cancel()
    assert tune.attempt == 2
    assert await world.lora(tune_id) == expected


async def test_an_unavailable_store_is_waited_for(world: TrainerWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    original, refusals = world.blobs.put_file, 2

    async def refuse(*args: object, **kwargs: object) -> object:
        nonlocal refusals
        if refusals:
            refusals -= 1
            msg = "the store does not answer"
            raise UnavailableError(msg)
        return await original(*args, **kwargs)  # pyright: ignore[reportArgumentType]

    tune_id = await world.queue_tune(steps=STEPS)
    monkeypatch.setattr(world.blobs, "put_file", refuse)
    async with world.trainer():
        tune = await world.until(tune_id, TuneState.PUBLISHING)
    assert (tune.attempt, refusals) == (1, 0)


async def test_a_child_ends_with_its_killed_parent(world: TrainerWorld, tmp_path: Path) -> None:
    """The trainer runs as a process of its own, which is killed: its child must not outlive it."""
    env = os.environ | {"TUNESMITH_HTTP_PORT": "0", "TUNESMITH_DEVICE": "cpu"}
    with (tmp_path / "log").open("wb") as out:
        trainer = subprocess.Popen([sys.executable, "-m", "services.trainer"], env=env, stdout=out, stderr=out)
    try:

        async def child_of() -> psutil.Process | None:
            found = psutil.Process(trainer.pid).children()
            return found[0] if found else None

        child = await eventually(child_of)
        assert os.getsid(child.pid) == child.pid
        trainer.send_signal(signal.SIGKILL)

        async def ended() -> bool | None:
            return True if not child.is_running() or child.status() == psutil.STATUS_ZOMBIE else None

        await eventually(ended)
    finally:
        trainer.kill()
        trainer.wait(10)
