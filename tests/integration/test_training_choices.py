"""What a request may choose about its training: the prior, images of the class, and only what fits a trainer."""

from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import insert, select

from services.scheduler.settings import SchedulerSettings
from shared.blobs.store import Blobs
from shared.database.tables import Trainer, TuneFile
from shared.engines import Engine
from shared.tunes import leases
from tests.support.scheduler_world import SchedulerWorld, make_world

GIB = 2**30
SDXL = {"asset_type": "checkpoint", "engine": Engine.SDXL, "native_size_px": 1024, "shape_class": "sdxl-1", "vae_factor": 8}


@pytest.fixture
async def world(
    make_settings: Callable[..., SchedulerSettings], database_url: str, blobs: Blobs
) -> AsyncIterator[SchedulerWorld]:
    async with make_world(make_settings, database_url, blobs) as world:
        yield world


async def ask(world: SchedulerWorld, name: str, **details: Any) -> httpx.Response:
    return await world.client.post("/v1/tune", json=await world.body(name, **details))


def problem(answer: httpx.Response) -> tuple[list[Any], str]:
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY, answer.text
    return answer.json()["detail"][0]["loc"], answer.json()["detail"][0]["msg"]


async def add_trainer(world: SchedulerWorld, name: str, memory_bytes: int | None) -> None:
    async with world.database.begin() as session:
        device = "cuda" if memory_bytes else "cpu"
        row = {"id": name, "host": "h", "device": device, "state": "idle", "memory_bytes": memory_bytes}
        await session.execute(insert(Trainer).values(row))


async def test_images_of_the_class_are_kept_apart_up_to_the_trainer(world: SchedulerWorld) -> None:
    subject, own = await world.add_asset("subject"), await world.add_asset("own")

    tune = await world.create(files=[{"file_id": subject}, {"file_id": own, "regularization": True}])

    assert tune["details"]["files"] == [
        {"file_id": subject, "caption": "sks1", "regularization": False},
        {"file_id": own, "caption": "a photo", "regularization": True},
    ]
    assert tune["warnings"] == []
    async with world.database.begin() as session:
        stored = select(TuneFile.regularization).where(TuneFile.tune_id == tune["id"]).order_by(TuneFile.position)
        assert list(await session.scalars(stored)) == [False, True]
        claim = await leases.claim(session, trainer="t", token=uuid4(), lease_s=30, running_per_account=4)
    assert claim is not None
    assert [file.regularization for file in claim.files] == [False, True]


async def test_a_prior_that_has_no_use_for_the_images_is_refused(world: SchedulerWorld) -> None:
    files = [{"file_id": await world.add_asset("subject")}, {"file_id": await world.add_asset("own"), "regularization": True}]

    for prior in ("none", "base_output"):
        loc, text = problem(await ask(world, prior, files=files, prior=prior))
        assert (loc, "class_images" in text) == (["body", "details", "prior"], True)
    loc, text = problem(await ask(world, "alone", files=files[1:]))
    assert (loc, "images of the subject" in text) == (["body", "details", "files"], True)
    assert (await ask(world, "good", files=files, prior="class_images")).status_code == httpx.codes.CREATED


@pytest.mark.parametrize("chosen", [{"prior": "images"}, {"clip_skip": 0}, {"clip_skip": 13}])
async def test_a_value_outside_the_limits_is_refused(world: SchedulerWorld, chosen: dict[str, Any]) -> None:
    loc, _ = problem(await ask(world, "dog", **chosen))
    assert loc == ["body", "details", *chosen]


async def test_a_tune_that_fits_no_trainer_is_refused_with_the_numbers(world: SchedulerWorld) -> None:
    await world.add_asset("my-xl", "checkpoint", data=SDXL)
    base = {"base_checkpoint": {"checkpoint_id": "my-xl"}}
    assert (await ask(world, "no-trainer", **base)).status_code == httpx.codes.CREATED

    await add_trainer(world, "small", 6 * GIB)
    loc, text = problem(await ask(world, "small", **base))
    assert loc == ["body", "details"]
    for part in ("GiB", "6.0 GiB", "1024 px", "rank 16"):
        assert part in text
    assert (await ask(world, "tiny-fits")).status_code == httpx.codes.CREATED

    await add_trainer(world, "large", 12 * GIB)
    assert (await ask(world, "large", **base)).status_code == httpx.codes.CREATED
    loc, text = problem(await ask(world, "too-large", **base, resolution=2048, rank=128))
    assert "12.0 GiB" in text

    await add_trainer(world, "cpu", None)
    assert (await ask(world, "cpu", **base, resolution=2048, rank=128)).status_code == httpx.codes.CREATED
