"""The stream of a tune's events: the same sequence as the pages, from where its client stopped."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from uuid import uuid4

import httpx
import pytest

from services.scheduler.settings import SchedulerSettings
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs
from shared.database.tables import Context
from shared.messaging.events import TuneSample
from shared.tunes import leases
from shared.tunes.leases import Lease
from tests.support.scheduler_world import SchedulerWorld, make_world
from tests.support.trainer_world import claim_next

_HOUR = 3600.0
_BOUND_S = 60.0


@pytest.fixture(params=["listening", "polling"])
async def world(
    request: pytest.FixtureRequest, make_settings: Callable[..., SchedulerSettings], database_url: str, blobs: Blobs
) -> AsyncIterator[SchedulerWorld]:
    """A world whose streams learn of events by notifications alone, or by polling alone."""
    listens = request.param == "listening"
    poll_s = _HOUR if listens else 0.05
    async with make_world(make_settings, database_url, blobs, event_poll_s=poll_s, event_streams=2) as world:
        listening = asyncio.create_task(world.notifications.run()) if listens else None
        if listens:
            await asyncio.wait_for(world.notifications.listening.wait(), _BOUND_S)
        yield world
        if listening:
            listening.cancel()


def read(frame: bytes) -> tuple[int, str]:
    """Return the id and type of an event after a check that its data have the same."""
    fields = dict(line.split(": ", 1) for line in frame.decode().strip().splitlines())
    data = json.loads(fields["data"])
    assert (str(data["sequence"]), data["type"]) == (fields["id"], fields["event"])
    return int(fields["id"]), fields["event"]


def frames(world: SchedulerWorld, tune_id: str, *, after: int = 0) -> aclosing[AsyncIterator[bytes]]:
    return aclosing(world.streams.frames(tune_id, after=after, stopping=world.app.state.stopping))


async def test_a_stream_sends_past_and_new_events_until_the_tune_has_ended(world: SchedulerWorld) -> None:
    tune_id = (await world.create())["id"]
    received: list[tuple[int, str]] = []

    async with asyncio.timeout(_BOUND_S), frames(world, tune_id) as stream:
        async for frame in stream:
            if frame.startswith(b":"):
                continue
            received.append(read(frame))
            if len(received) == 1:
                await world.client.post(f"/v1/tune/{tune_id}/cancel")

    assert received == [(1, "tune.queued"), (2, "tune.cancelled")]
    assert received == await world.events(tune_id)
    assert world.streams.open == 0


async def test_a_stream_whose_client_disconnects_is_released(world: SchedulerWorld) -> None:
    tune_id = (await world.create())["id"]
    async with frames(world, tune_id) as stream:
        assert (await anext(stream)).startswith(b":")
        assert read(await anext(stream)) == (1, "tune.queued")
        waits = asyncio.ensure_future(anext(stream))
        assert world.streams.open == 1
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)

    assert world.streams.open == 0
    assert world.notifications._waiting == {}


async def test_a_stopping_process_ends_its_streams(world: SchedulerWorld) -> None:
    tune_id = (await world.create())["id"]
    async with asyncio.timeout(_BOUND_S), frames(world, tune_id) as stream:
        async for frame in stream:
            if not frame.startswith(b":"):
                world.app.state.stopping.set()
    world.app.state.stopping.clear()


async def test_a_stream_over_http_continues_after_the_last_event_id(world: SchedulerWorld) -> None:
    tune_id = (await world.create())["id"]
    await world.client.post(f"/v1/tune/{tune_id}/cancel")
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "1"}

    for path in (f"/v1/tune/{tune_id}/events", f"/v1/tune/{tune_id}/events/stream"):
        answer = await world.client.get(path, headers=headers)

        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store"
        received = [frame for frame in answer.content.split(b"\n\n") if frame and not frame.startswith(b":")]
        assert [read(frame) for frame in received] == [(2, "tune.cancelled")]
        over = await world.client.get(path, headers=headers | {"Last-Event-ID": "2"})
        assert over.status_code == httpx.codes.NO_CONTENT
    wrong = await world.client.get(path, headers=headers | {"Last-Event-ID": "last"})
    assert wrong.status_code == 422
    foreign = await world.stranger.get(path, headers=headers)
    assert foreign.status_code == 404


async def test_a_stream_over_the_servers_limit_is_refused(world: SchedulerWorld) -> None:
    tune_id = (await world.create())["id"]
    with world.streams.room.of(world.account_id), world.streams.room.of(uuid4()):
        answer = await world.client.get(f"/v1/tune/{tune_id}/events/stream")

        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")


async def test_a_sample_has_a_link_until_a_later_epoch_replaces_it(world: SchedulerWorld, blobs: Blobs) -> None:
    tune_id = (await world.create())["id"]

    async def sample(epoch: int, step: int) -> None:
        key = f"tunes/{tune_id}/{epoch}/sample-{step}-0.png"
        stored = await blobs.put_bytes(key, b"image %d" % epoch)
        async with world.database.begin() as session:
            await blob_rows.stage(session, Context.TUNES, key)
            await blob_rows.commit(session, key, stored)
            drawn = TuneSample(number=0, prompt="sks1", seed=1, key=key)
            await leases.sampled(session, Lease(tune_id, epoch), step=step, samples=[drawn])

    await claim_next(world.database)
    await sample(1, 5)
    async with world.database.begin() as session:
        await leases.release(session, Lease(tune_id, 1))
    await claim_next(world.database)
    await sample(2, 5)

    page = (await world.client.get(f"/v1/tune/{tune_id}/events")).json()["data"]
    first, second = [event["data"]["samples"][0] for event in page if event["type"] == "tune.sampled"]

    assert first == {"number": 0, "prompt": "sks1", "seed": 1, "url": None}
    async with httpx.AsyncClient() as plain:
        assert (await plain.get(second["url"])).content == b"image 2"
    with pytest.raises(leases.LeaseLostError):
        await sample(1, 6)
