"""Workers claim rows one at a time, under an epoch, with or without hints, and no request waits for a busy worker."""

import os
import time
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from services.inference.worker import repository
from services.inference.worker.files import FileCache
from services.inference.worker.repository import Choice
from shared.blobs.store import Blobs
from shared.database.tables import Context
from shared.errors import InvalidError, LeaseLostError, UnavailableError
from shared.messaging import outbox
from shared.messaging.events import ImageRequested
from tests.support.inference_world import FakePainter, InferenceWorld, make_world


@pytest.fixture
async def world(
    database_url: str, blobs: Blobs, make_settings: Callable[..., Any], tmp_path: Path
) -> AsyncIterator[InferenceWorld]:
    async with make_world(database_url, blobs, make_settings, tmp_path) as world:
        await world.add_empty_checkpoint()
        await world.until_listening()
        yield world


async def claim(world: InferenceWorld) -> repository.Claim:
    async with world.database.begin() as session:
        held = await repository.claim(session, worker="slow", token=uuid4(), claim_s=30, choice=Choice(open_after_s=0))
    assert held is not None
    return held


async def test_a_request_is_drawn_and_its_images_are_returned(world: InferenceWorld) -> None:
    async with world.worker(FakePainter()):
        answer = await world.client.post("/generate/sd", json={"prompt": "a star", "seed": 7, "num_images": 2})

    assert answer.status_code == 200, answer.text
    assert [(image["seed"], image["image_b64"]) for image in answer.json()["images"]] == [(7, "Nw=="), (8, "OA==")]
    generation = await world.generation()
    assert (generation.state, generation.attempt, generation.claim_epoch) == ("succeeded", 1, 1)


async def test_a_redelivered_request_is_not_drawn_again(world: InferenceWorld) -> None:
    painter = FakePainter()
    async with world.worker(painter, hears=True):
        first = await world.finished(await world.submit())
        async with world.database.begin() as session:
            again = ImageRequested(generation_id=first.id, affinity=first.affinity, version=1)
            await outbox.publish(session, Context.IMAGES, again)
        # The same affinity, so its event follows the repeated one on the same partition.
        second = await world.finished(await world.submit())

    assert len(painter.drawn) == 2
    now = await world.generation(first.id)
    assert (now.version, now.claim_epoch, now.result) == (first.version, 1, first.result)
    assert second.state == "succeeded"


async def test_a_worker_that_lost_its_claim_writes_nothing(world: InferenceWorld) -> None:
    generation_id = await world.submit(seed=3)
    slow = await claim(world)
    await world.expire_claims()
    async with world.worker(FakePainter()):
        done = await world.finished(generation_id)

    assert (done.claim_epoch, done.attempt) == (2, 2)
    async with world.database.begin() as session:
        for late in (
            repository.succeed(session, slow, {"pictures": []}),
            repository.fail(session, slow, code="x", message="x", status=500),
            repository.renew(session, slow, claim_s=30),
            repository.give_back(session, slow, count_attempt=False),
        ):
            with pytest.raises(LeaseLostError):
                await late
    assert (await world.generation(generation_id)).result == done.result


async def test_no_request_waits_for_a_busy_worker(world: InferenceWorld) -> None:
    busy, free = FakePainter(), FakePainter()
    busy.may_go_on.clear()
    group = str(uuid4())
    async with world.worker(busy, hears=True, group=group):
        first = await world.submit(seed=1)
        await world.until_begun(busy)
        async with world.worker(free, hears=True, group=group):
            # The same models, so the same partition, which may be the busy worker's.
            others = [await world.finished(await world.submit(seed=seed)) for seed in (2, 3, 4)]
            assert (await world.generation(first)).state == "running"
        busy.may_go_on.set()
        await world.finished(first)

    assert {other.state for other in others} == {"succeeded"}
    assert [inputs.seeds for inputs in free.drawn] == [[2], [3], [4]]


async def test_a_request_without_a_hint_is_found_by_a_poll(world: InferenceWorld) -> None:
    async with world.worker(FakePainter()):
        assert (await world.finished(await world.submit())).state == "succeeded"


async def test_a_stopped_worker_gives_its_request_back_and_no_attempt_is_counted(world: InferenceWorld) -> None:
    painter = FakePainter()
    painter.may_go_on.clear()
    generation_id = await world.submit()
    async with world.worker(painter):
        await world.until_begun(painter)
    given_back = await world.generation(generation_id)
    assert (given_back.state, given_back.attempt) == ("queued", 0)
    async with world.worker(FakePainter()):
        assert (await world.finished(generation_id)).attempt == 1


async def test_a_request_that_no_worker_can_finish_fails_after_its_attempts(world: InferenceWorld) -> None:
    painter = FakePainter()
    painter.fail = [UnavailableError("the store is unavailable") for _ in range(5)]
    async with world.worker(painter):
        answer = await world.client.post("/generate/sd", json={"prompt": "a star"})

    assert (answer.status_code, answer.json()["code"]) == (500, "attempts_exhausted")
    assert len(painter.drawn) == world.settings.generation_attempts


async def test_an_invalid_request_is_a_422_that_names_the_field(world: InferenceWorld) -> None:
    painter = FakePainter()
    painter.fail = [InvalidError("vae: does not fit", loc=("body", "vae"))]
    async with world.worker(painter):
        answer = await world.client.post("/generate/sd", json={"prompt": "a star"})

    assert answer.status_code == 422
    assert answer.json()["detail"] == [{"loc": ["body", "vae"], "msg": "vae: does not fit", "type": "value_error"}]


async def test_a_file_gets_its_name_only_after_its_bytes_are_checked(blobs: Blobs, tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "files", blobs, max_bytes=100)
    await blobs.put_bytes("assets/lora", b"other bytes")

    with pytest.raises(InvalidError, match="the LoRA sks"):
        await cache.fetch("assets/lora", sha256(b"the bytes").hexdigest(), "the LoRA sks")

    assert [path.name for path in (tmp_path / "files").rglob("*") if path.is_file()] == ["lock"]


async def test_files_on_disk_are_limited_and_those_in_use_stay(blobs: Blobs, tmp_path: Path) -> None:
    cache = FileCache(tmp_path / "files", blobs, max_bytes=100)
    paths: list[Path] = []
    for number in range(4):
        content = bytes([number]) * 40
        await blobs.put_bytes(f"assets/{number}", content)
        paths.append(await cache.fetch(f"assets/{number}", sha256(content).hexdigest(), "a LoRA"))
        # Last use is the file's time, which some file systems store coarsely.
        before = time.time() - 100 + number
        os.utime(paths[-1], (before, before))

    cache.trim({paths[0]})

    assert [path.exists() for path in paths] == [True, False, True, True]
