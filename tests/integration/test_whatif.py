"""What-if: the errors of a real request, lint, an estimate, and no trace in the database."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageFilter
from sqlalchemy import func, select, update

from services.scheduler.settings import SchedulerSettings
from services.scheduler.whatif.measures import Measurer
from shared.blobs.store import Blobs
from shared.database.tables import Asset, AssetName, Tune
from tests.support.scheduler_world import SchedulerWorld, make_world


@pytest.fixture
async def world(
    make_settings: Callable[..., SchedulerSettings], database_url: str, blobs: Blobs
) -> AsyncIterator[SchedulerWorld]:
    async with make_world(make_settings, database_url, blobs) as world:
        yield world


def make_image(seed: int, size: tuple[int, int] = (96, 96), *, blur: float = 0.0, shift: int = 0) -> bytes:
    """Return an image of random patches; `blur` removes detail, `shift` makes all of it a little brighter."""
    patches = np.random.default_rng(seed).integers(0, 200, (6, 6, 3), dtype=np.uint8) + shift
    image = Image.fromarray(patches.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.filter(ImageFilter.GaussianBlur(blur)).save(buffer, "PNG")
    return buffer.getvalue()


async def add(world: SchedulerWorld, blobs: Blobs, name: str, data: bytes) -> str:
    asset_id = await world.add_asset(name)
    async with world.database.begin() as session:
        key = await session.scalar(select(Asset.blob_key).where(Asset.id == asset_id))
    assert key is not None
    await blobs.put_bytes(key, data)
    return asset_id


async def ask(world: SchedulerWorld, name: str = "sks1-dog", **details: Any) -> httpx.Response:
    return await world.client.post("/v1/tune?whatif=true", json=await world.body(name, **details))


async def estimate(world: SchedulerWorld, file_id: str, **details: Any) -> dict[str, Any]:
    answer = await ask(world, files=[{"file_id": file_id}], **details)
    assert answer.status_code == 200, answer.text
    return answer.json()["estimate"]


async def test_requests_at_the_same_time_wait_for_each_other(world: SchedulerWorld, blobs: Blobs) -> None:
    files = [{"file_id": await add(world, blobs, "one", make_image(1))}]

    answers = await asyncio.gather(*(ask(world, f"tune-{number}", files=files) for number in range(6)))

    assert [answer.status_code for answer in answers] == [200] * 6, answers[-1].text


async def test_lint_names_each_weakness_with_its_image(world: SchedulerWorld, blobs: Blobs) -> None:
    ids = {
        "good": await add(world, blobs, "good", make_image(1)),
        "alike": await add(world, blobs, "alike", make_image(1, shift=3)),
        "blurred": await add(world, blobs, "blurred", make_image(2, blur=12)),
        "small": await add(world, blobs, "small", make_image(3, (40, 40))),
        "long": await add(world, blobs, "long", make_image(4, (300, 100))),
        "broken": await add(world, blobs, "broken", b"not an image"),
        "uncaptioned": await add(world, blobs, "uncaptioned", make_image(5)),
        "unchecked": await world.add_asset("unchecked", status="uploaded"),
    }
    names = {file_id: name for name, file_id in ids.items()}
    files = [{"file_id": file_id, "caption": "a dog" if name == "uncaptioned" else "sks1"} for name, file_id in ids.items()]

    answer = await ask(world, files=[*files, files[0]], steps=50)

    assert answer.status_code == 200, answer.text
    found = {(lint["code"], names.get(lint["file_id"])) for lint in answer.json()["lint"]}
    assert found == {
        ("near_duplicate", "alike"),
        ("blurred", "blurred"),
        ("too_small", "small"),
        ("extreme_aspect", "long"),
        ("unreadable", "broken"),
        ("caption_without_trigger_word", "uncaptioned"),
        ("not_checked_yet", "unchecked"),
        ("repeated_file", "good"),
        ("few_steps", None),
    }
    assert all(lint["message"] for lint in answer.json()["lint"])


async def test_a_what_if_starts_and_reserves_nothing(world: SchedulerWorld, blobs: Blobs) -> None:
    file_id = await add(world, blobs, "photo", make_image(1))

    for _ in range(2):
        assert (await ask(world, files=[{"file_id": file_id}])).status_code == 200

    async with world.database.begin() as session:
        assert await session.scalar(select(func.count()).select_from(Tune)) == 0
        assert await session.scalar(select(func.count()).where(AssetName.name == "sks1-dog")) == 0
    await world.create("sks1-dog")


async def test_a_what_if_is_refused_with_the_errors_of_a_real_request(world: SchedulerWorld) -> None:
    body = await world.body("dog", steps=0)
    assert (await world.client.post("/v1/tune?whatif=true", json=body)).json() == (
        await world.client.post("/v1/tune", json=body)
    ).json()
    unknown = await ask(world, files=[{"file_id": "asset_unknown"}])
    assert (unknown.status_code, unknown.json()["detail"][0]["loc"]) == (422, ["body", "details", "files", 0, "file_id"])
    await world.create("dog")
    assert (await ask(world, "dog")).status_code == 409


async def test_the_estimated_time_comes_from_the_tunes_that_this_server_trained(world: SchedulerWorld, blobs: Blobs) -> None:
    file_id = await add(world, blobs, "photo", make_image(1))
    first = await estimate(world, file_id, steps=100)
    assert first["basis"] == "a small checkpoint on two CPU cores"
    done = await world.create("done", steps=100)
    await world.train(done["id"])
    async with world.database.begin() as session:
        # 10 steps per second, and 5 s besides the steps.
        times = {"started_at": func.now() - timedelta(seconds=15), "trained_at": func.now(), "steps_per_second": 10.0}
        await session.execute(update(Tune).where(Tune.id == done["id"]).values(times))

    same = await estimate(world, file_id, steps=100)
    larger = await estimate(world, file_id, steps=200, batch_size=10)

    assert same["basis"] == "the last 1 tunes of this shape on this server"
    assert same["seconds"] == pytest.approx(15, abs=0.2)
    # Twice the steps, and ten images in each instead of four, each with half a row for the prior.
    assert larger["seconds"] == pytest.approx(5 + 20 * 10 / 4, abs=0.2)
    assert same["memory_bytes"] >= same["least_memory_bytes"] > 0


async def test_the_estimate_knows_the_prior(world: SchedulerWorld, blobs: Blobs) -> None:
    file_id = await add(world, blobs, "photo", make_image(1))
    seconds = {
        prior: (await estimate(world, file_id, steps=1000, prior=prior))["seconds"]
        for prior in ("none", "class_images", "base_output")
    }
    style = await ask(world, files=[{"file_id": file_id, "caption": "a dog in the style of sks1"}], steps=1000)

    assert seconds["none"] < seconds["class_images"] < seconds["base_output"]
    assert style.json()["estimate"]["seconds"] == seconds["none"]


async def test_an_image_that_ends_the_child_does_not_affect_the_next_one(tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    good.write_bytes(make_image(1))
    async with Measurer() as measurer:
        before = await measurer.measure(good)
        child = measurer._sandbox.process
        assert child is not None
        child.kill()
        await child.wait()
        lost = await measurer.measure(good)
        after = await measurer.measure(good)
    assert before is not None
    assert (before.width, before.height) == (96, 96)
    assert lost is None
    assert after == before
