"""What the console shows of tunes: lists by word and status, what a tune waits for, its curve and its samples."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import func, insert

from services.scheduler.events.curve import add_up
from services.scheduler.settings import SchedulerSettings
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs
from shared.database.tables import Context, Trainer, TuneEvent
from shared.messaging.events import TuneSample
from shared.tunes import leases
from shared.tunes.leases import Lease
from tests.support.scheduler_world import SchedulerWorld, make_world
from tests.support.trainer_world import claim_next


@pytest.fixture
async def world(
    make_settings: Callable[..., SchedulerSettings], database_url: str, blobs: Blobs
) -> AsyncIterator[SchedulerWorld]:
    async with make_world(make_settings, database_url, blobs) as world:
        yield world


async def _connect_trainer(world: SchedulerWorld) -> None:
    async with world.database.begin() as session:
        row = {"id": "trainer_a", "host": "gpu-1", "device": "cuda", "state": "idle", "seen_at": func.now()}
        await session.execute(insert(Trainer).values(row))


async def _sample(world: SchedulerWorld, tune_id: str, step: int, prompts: int = 1) -> None:
    drawn = []
    async with world.database.begin() as session:
        for number in range(prompts):
            key = f"tunes/{tune_id}/1/sample-{step}-{number}.png"
            stored = await world.blobs.put_bytes(key, b"step %d" % step)
            await blob_rows.stage(session, Context.TUNES, key)
            await blob_rows.commit(session, key, stored)
            drawn.append(TuneSample(number=number, prompt=f"prompt {number}", seed=7, key=key))
        await leases.sampled(session, Lease(tune_id, 1), step=step, samples=drawn)


def _names(answer: httpx.Response) -> list[str]:
    assert answer.status_code == httpx.codes.OK, answer.text
    return [tune["name"] for tune in answer.json()["data"]]


async def test_a_list_finds_words_and_sorts(world: SchedulerWorld) -> None:
    await world.create("b-dog", trigger_words=["sks1"])
    await world.create("A-cat", trigger_words=["ohwx"], top={"description": "100% fur"})

    assert _names(await world.client.get("/v1/tunes?q=DOG")) == ["b-dog"]
    assert _names(await world.client.get("/v1/tunes?q=ohw")) == ["A-cat"]
    assert _names(await world.client.get("/v1/tunes", params={"q": "0% f"})) == ["A-cat"]
    assert _names(await world.client.get("/v1/tunes", params={"q": "%"})) == ["A-cat"], "a % is no wildcard"
    assert _names(await world.client.get("/v1/tunes?sort=oldest")) == ["b-dog", "A-cat"]
    assert _names(await world.client.get("/v1/tunes?sort=name")) == ["A-cat", "b-dog"]
    assert (await world.client.get("/v1/tunes?sort=size")).status_code == 422


async def test_a_list_has_the_status_that_was_asked_for(world: SchedulerWorld) -> None:
    running = (await world.create("running"))["id"]
    assert (await claim_next(world.database)).lease.tune_id == running
    await world.create("pending")
    cancelled = await world.create("cancelled")
    await world.client.post(f"/v1/tune/{cancelled['id']}/cancel")
    back = (await world.create("running-again"))["id"]

    for status in ("running", "pending", "cancelled"):
        answer = await world.client.get(f"/v1/tunes?status={status}")
        assert {tune["status"] for tune in answer.json()["data"]} == {status}
    assert _names(await world.client.get("/v1/tunes?status=running&status=cancelled&sort=name")) == ["cancelled", "running"]

    async with world.database.begin() as session:
        await leases.release(session, Lease(running, 1))
    assert _names(await world.client.get("/v1/tunes?status=running")) == ["running"], "it is queued after a claim"
    assert back in (await world.client.get("/v1/tunes?status=pending")).text


async def test_a_waiting_tune_says_what_it_waits_for(world: SchedulerWorld) -> None:
    slow = await world.add_asset("slow", status="uploaded")
    unchecked = await world.create("unchecked", files=[{"file_id": slow}])
    assert (unchecked["phase"], unchecked["queue"]) == ("files", {"reason": "files", "ahead": 0, "files_unchecked": 1})

    await world.create("first")
    second = (await world.create("second"))["id"]
    shown = (await world.client.get(f"/v1/tune/{second}")).json()
    assert (shown["phase"], shown["queue"]) == ("queue", {"reason": "no_trainer", "ahead": 1, "files_unchecked": 0})

    await _connect_trainer(world)
    assert (await world.client.get(f"/v1/tune/{second}")).json()["queue"]["reason"] == "ahead"
    claim = await claim_next(world.database)
    claimed = (await world.client.get(f"/v1/tune/{claim.lease.tune_id}")).json()
    assert (claimed["name"], claimed["phase"], claimed["queue"]) == ("first", "loading", None)
    assert (await world.client.get(f"/v1/tune/{second}")).json()["queue"]["ahead"] == 0


async def test_the_newest_samples_stand_for_a_tune_and_before_them_its_images(world: SchedulerWorld) -> None:
    image = await world.add_asset("photo", status="uploaded")
    tune_id = (await world.create(files=[{"file_id": image}]))["id"]
    assert (await world.client.get(f"/v1/tune/{tune_id}")).json()["thumbnail_urls"] == []
    await world.verdict(image, "ready")
    async with world.database.begin() as session:
        await world.service.queue_or_fail_by_verdicts(session, tune_id)
    [url] = (await world.client.get(f"/v1/tune/{tune_id}")).json()["thumbnail_urls"]
    assert f"/assets/{image}/" in url

    await claim_next(world.database)
    await _sample(world, tune_id, 5)
    await _sample(world, tune_id, 10, prompts=2)

    async with httpx.AsyncClient() as plain:
        urls = (await world.client.get("/v1/tunes")).json()["data"][0]["thumbnail_urls"]
        assert [(await plain.get(url)).content for url in urls] == [b"step 10", b"step 10"]


async def test_all_samples_are_listed_by_step_and_prompt(world: SchedulerWorld) -> None:
    tune_id = (await world.create())["id"]
    await claim_next(world.database)
    await _sample(world, tune_id, 5)
    await _sample(world, tune_id, 10, prompts=2)

    answer = (await world.client.get(f"/v1/tune/{tune_id}/samples")).json()

    assert [(one["step"], one["number"], one["prompt"]) for one in answer["data"]] == [
        (5, 0, "prompt 0"),
        (10, 0, "prompt 0"),
        (10, 1, "prompt 1"),
    ]
    assert answer["sequence"] == (await world.row(tune_id)).version
    async with httpx.AsyncClient() as plain:
        assert (await plain.get(answer["data"][0]["url"])).content == b"step 5"


async def test_the_losses_of_a_tune_are_one_answer(world: SchedulerWorld) -> None:
    tune_id = (await world.create())["id"]
    empty = (await world.client.get(f"/v1/tune/{tune_id}/losses")).json()
    assert (empty["first_step"], empty["losses"], empty["resumed_at"]) == (1, [], [])
    await claim_next(world.database)
    async with world.database.begin() as session:
        for step, losses in ((3, [0.5, 0.4, 0.3]), (5, [0.2, 0.1])):
            await leases.progress(
                session, Lease(tune_id, 1), step=step, loss=0.1, steps_per_second=1.0, steps_run=step, losses=losses
            )

    whole = (await world.client.get(f"/v1/tune/{tune_id}/losses")).json()
    rest = (await world.client.get(f"/v1/tune/{tune_id}/losses?after=3")).json()

    events = (await world.client.get(f"/v1/tune/{tune_id}/events?progress=false")).json()
    assert [event["type"] for event in events["data"]] == ["tune.queued", "tune.started"]
    assert (whole["first_step"], whole["losses"]) == (1, [0.5, 0.4, 0.3, 0.2, 0.1])
    assert whole["sequence"] == (await world.row(tune_id)).version
    assert (rest["first_step"], rest["losses"]) == (4, [0.2, 0.1])
    assert (await world.stranger.get(f"/v1/tune/{tune_id}/losses")).status_code == 404
    assert (await world.stranger.get(f"/v1/tune/{tune_id}/samples")).status_code == 404


def _event(kind: str, step: int, losses: list[float] | None = None) -> Any:
    return TuneEvent(type=kind, data={"step": step, "losses": losses or []})


def test_a_resumed_attempt_repeats_the_steps_after_its_checkpoint() -> None:
    events = [
        _event("tune.started", 0),
        _event("tune.progressed", 4, [0.4, 0.3, 0.2, 0.1]),
        _event("tune.started", 2),
        _event("tune.progressed", 3, [0.9]),
        _event("tune.progressed", 6, [0.7]),
    ]

    assert add_up(events) == ({1: 0.4, 2: 0.3, 3: 0.9, 6: 0.7}, [2])
