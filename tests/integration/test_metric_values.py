"""What the metrics of tunes, of the outbox, of the pool and of requests say."""

from collections.abc import AsyncIterator, Callable
from contextlib import nullcontext
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter
from prometheus_client import REGISTRY
from sqlalchemy import text, update

from services.scheduler.watch import QueueMeter
from services.trainer.settings import TrainerSettings
from shared.blobs.store import Blobs
from shared.database.tables import OUTBOXES, Context, Tune
from shared.http import app as web
from shared.messaging import outbox
from shared.messaging.events import TuneCancelRequested
from shared.messaging.relay import Relay
from shared.settings import ServiceSettings
from shared.states import TuneState
from tests.support.trainer_world import TrainerWorld, make_world


@pytest.fixture
async def world(
    database_url: str, blobs: Blobs, make_settings: Callable[..., ServiceSettings], tmp_path: Path
) -> AsyncIterator[TrainerWorld]:
    settings = make_settings(TrainerSettings)
    assert isinstance(settings, TrainerSettings)
    world = await make_world(database_url, blobs, settings, tmp_path)
    yield world
    await world.database.close()


def _value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


async def test_tunes_are_counted_by_state_and_the_oldest_of_the_queue_is_timed(world: TrainerWorld) -> None:
    meter = QueueMeter(world.database)
    old, ended, _ = [await world.queue_tune() for _ in range(3)]
    async with world.database.begin() as session:
        await session.execute(update(Tune).where(Tune.id == old).values(queued_at=text("now() - interval '90 s'")))
        await session.execute(update(Tune).where(Tune.id == ended).values(state=TuneState.FAILED, ended_at=text("now()")))
    await meter.run_once()

    assert (_value("tunesmith_tunes", state="queued"), _value("tunesmith_tunes", state="training")) == (2, 0)
    assert 90 <= (_value("tunesmith_tunes_oldest_queued_seconds") or 0) < 150

    async with world.database.begin() as session:
        await session.execute(update(Tune).values(state=TuneState.FAILED, ended_at=text("now()")))
    await meter.run_once()

    assert (_value("tunesmith_tunes", state="queued"), _value("tunesmith_tunes_oldest_queued_seconds")) == (0, 0)


async def test_events_that_are_due_are_counted_and_those_that_rest_are_not(world: TrainerWorld) -> None:
    relay, table = Relay(world.database, Context.TUNES, world.settings), OUTBOXES[Context.TUNES]
    async with world.database.begin() as session:
        for number in range(3):
            event = TuneCancelRequested(version=1, tune_id=f"tune_{number}", account_id=str(world.account_id))
            await outbox.publish(session, Context.TUNES, event)
        await session.execute(update(table).values(created_at=text("now() - interval '1 min'")))
        resting = update(table).where(table.c.key == "tune_0")
        await session.execute(resting.values(not_before=text("now() + interval '1 h'")))
    await relay.measure()

    assert _value("tunesmith_outbox_rows", context="tunes") == 2
    assert 60 <= (_value("tunesmith_outbox_oldest_seconds", context="tunes") or 0) < 120


async def test_a_transaction_counts_as_a_connection_in_use(world: TrainerWorld) -> None:
    pool = {"pool": "tunesmith"}
    async with world.database.begin() as session:
        await session.execute(text("SELECT 1"))
        assert _value("tunesmith_database_connections_in_use", **pool) == 1
    assert _value("tunesmith_database_connections_in_use", **pool) == 0
    assert (_value("tunesmith_database_connections_limit", **pool) or 0) >= 2


async def test_requests_are_timed_by_the_template_of_their_path() -> None:
    router = APIRouter()

    @router.get("/things/{number}")
    async def thing(number: int) -> int:
        return number

    app = web.create_app("test", lifespan=lambda _app: nullcontext(), routers=[router])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service.test") as client:
        for path in ("/things/1", "/things/2", "/things/none"):
            await client.get(path)

    labels = {"method": "GET", "route": "/things/{number}"}
    assert _value("tunesmith_http_request_seconds_count", **labels, status="200") == 2
    assert _value("tunesmith_http_request_seconds_count", **labels, status="422") == 1
