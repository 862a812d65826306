"""State and event are atomic (promise 3), and the events of one tune are in order (promise 5)."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from deploy.local.paths import PROJECT
from services.trainer.settings import TrainerSettings
from shared.background import Background
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import OUTBOXES, Context
from shared.messaging.relay import Relay
from shared.messaging.topics import ensure_topics
from shared.settings import ServiceSettings
from shared.states import TuneState
from shared.tunes import leases
from shared.tunes.leases import Claim
from tests.support.topic_reader import messages
from tests.support.trainer_world import TrainerWorld, make_world
from tests.support.waiting import eventually

WRITERS = 64
CONNECTIONS = 16
TUNES = 4


@pytest.fixture
async def world(
    database_url: str, blobs: Blobs, make_settings: Callable[..., ServiceSettings], tmp_path: Path
) -> AsyncIterator[TrainerWorld]:
    settings = make_settings(TrainerSettings, outbox_poll_s=0.1)
    assert isinstance(settings, TrainerSettings)
    await ensure_topics(settings)
    world = await make_world(database_url, blobs, settings, tmp_path)
    yield world
    await world.database.close()


async def claimed(world: TrainerWorld) -> Claim:
    await world.queue_tune(steps=WRITERS)
    async with world.database.begin() as session:
        held = await leases.claim(session, trainer="t", token=uuid4(), lease_s=600, running_per_account=TUNES)
    assert held is not None
    return held


async def published(world: TrainerWorld, tune_id: str) -> list[tuple[int, str, str]]:
    """Relay all that waits, and return each message of the tune: version, type and event id."""

    async def outbox_is_empty() -> bool | None:
        async with world.database.begin() as session:
            return None if await session.scalar(select(func.count()).select_from(OUTBOXES[Context.TUNES])) else True

    async with Background() as background:
        background.run("relay", Relay(world.database, Context.TUNES, world.settings).run)
        await eventually(outbox_is_empty)
    found = [message for message in await messages(world.settings, "tunes") if message.key == tune_id]
    return [(json.loads(one.body)["version"], one.headers["ce_type"], one.headers["ce_id"]) for one in found]


@pytest.mark.parametrize("place", ["before_commit", "after_commit", "after_produce", "after_delete"])
async def test_events_match_the_state_wherever_the_writer_is_killed(world: TrainerWorld, place: str) -> None:
    held = await claimed(world)
    command = [sys.executable, "-m", "tests.support.crash_point", place, held.tune.id, str(held.lease.epoch)]
    died = await asyncio.to_thread(subprocess.run, command, cwd=PROJECT, env=os.environ, check=False)
    assert died.returncode == -signal.SIGKILL

    found = await published(world, held.tune.id)

    tune = await world.tune(held.tune.id)
    assert tune.state == (TuneState.PREPARING if place == "before_commit" else TuneState.TRAINING)
    kinds = await world.event_types(held.tune.id)
    assert [kind for _, kind in sorted({(version, kind) for version, kind, _ in found})] == kinds
    assert max(version for version, _, _ in found) == tune.version
    # What was published twice has one id, by which the inbox knows it.
    assert len({event_id for _, _, event_id in found}) == len(kinds)
    assert (len(found) > len(kinds)) == place.startswith(("after_produce", "after_delete"))


async def test_the_events_of_one_tune_are_in_order_with_many_writers(world: TrainerWorld, database_url: str) -> None:
    many = Database(database_url, pool_size=CONNECTIONS)
    drawn = random.Random(7)
    held = [await claimed(world) for _ in range(TUNES)]
    for one in held:
        async with world.database.begin() as session:
            await leases.begin_training(session, one.lease, step=0)

    async def write(one: Claim, step: int, delay_s: float) -> None:
        async with many.begin() as session:
            await leases.progress(session, one.lease, step=step, loss=None, steps_per_second=None, steps_run=1)
            # Waits between the write and its commit, so that outbox ids become visible in another order than they were drawn in.
            await asyncio.sleep(delay_s)

    async with Background() as background:
        background.run("relay", Relay(world.database, Context.TUNES, world.settings).run)
        await asyncio.gather(*(write(held[n % TUNES], n, drawn.uniform(0, 0.02)) for n in range(WRITERS)))
    await many.close()

    for one in held:
        versions = [version for version, _, _ in await published(world, one.tune.id)]
        tune = await world.tune(one.tune.id)
        assert list(dict.fromkeys(versions)) == list(range(1, tune.version + 1)), "strictly increasing, and none left out"
        assert tune.version == 2 + WRITERS // TUNES
