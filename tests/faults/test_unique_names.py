"""Unique names hold under a race (promise 13): of many requests for one name, to replicas of two services, one gets it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from services.scheduler import api
from services.scheduler.service import TuneService
from services.scheduler.settings import SchedulerSettings
from services.scheduler.whatif.service import WhatIfService
from services.upload.settings import UploadSettings
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.settings import ServiceSettings
from tests.support.upload_world import UploadWorld
from tests.support.world import CHECKPOINT, World, routes_alone

REPLICAS = 2


@dataclass
class Replicas:
    """Two replicas of upload and two of the scheduler on one database, and an image to tune on."""

    libraries: list[httpx.AsyncClient]
    schedulers: list[httpx.AsyncClient]
    image_id: str

    async def create_asset(self, replica: int, name: str) -> httpx.Response:
        body = {"name": name, "asset_type": "file", "data": {"asset_type": "file"}}
        return await self.libraries[replica % REPLICAS].post("/v1/assets", json=body)

    async def create_tune(self, replica: int, name: str) -> httpx.Response:
        details: dict[str, Any] = {
            "base_checkpoint": {"checkpoint_id": "octoai:base"},
            "files": [{"file_id": self.image_id}],
            "steps": 1,
            "trigger_words": ["sks1"],
        }
        return await self.schedulers[replica % REPLICAS].post("/v1/tune", json={"name": name, "details": details})


@pytest.fixture
async def world(make_settings: Callable[..., ServiceSettings], database_url: str, blobs: Blobs) -> AsyncIterator[Replicas]:
    databases = [Database(database_url) for _ in range(2 * REPLICAS)]
    upload_settings = make_settings(UploadSettings)
    assert isinstance(upload_settings, UploadSettings)
    uploads = [await UploadWorld.build(upload_settings, database, blobs) for database in databases[:REPLICAS]]
    base = World(database=databases[0], blobs=blobs)
    await base.put_asset(await base.platform_account(), "base", "checkpoint", is_public=True, data=CHECKPOINT)
    image = await base.put_asset(uploads[0].account_id, "image")
    schedulers: list[httpx.AsyncClient] = []
    for database in databases[REPLICAS:]:
        settings = make_settings(SchedulerSettings)
        assert isinstance(settings, SchedulerSettings)
        routes = api.router(database, TuneService(settings, blobs), WhatIfService(database, blobs, settings))
        schedulers.append(await base.connect(routes_alone("scheduler", database, [routes]), uploads[0].account_id))
    yield Replicas([one.client for one in uploads], schedulers, image.id)
    for closing in (*schedulers, *uploads):
        await (closing.close() if isinstance(closing, UploadWorld) else closing.aclose())
    for database in databases:
        await database.close()


@pytest.mark.parametrize("tries", [pytest.param(24, id="short"), pytest.param(200, id="long", marks=pytest.mark.long)])
async def test_of_many_assets_and_tunes_that_ask_for_a_name_at_once_one_gets_it(world: Replicas, tries: int) -> None:
    async def taken(name: str) -> list[httpx.Response]:
        kinds: list[Callable[[int, str], Awaitable[httpx.Response]]] = [world.create_asset, world.create_tune]
        return list(await asyncio.gather(*(kinds[number % 2](number // 2, name) for number in range(tries))))

    answers = await taken("dog")
    # Creates of one account take turns, and one that waits too long is told to retry.
    waited = [answer for answer in answers if answer.status_code in {429, 503}]
    assert all(answer.headers["Retry-After"] for answer in waited)
    [winner] = [answer for answer in answers if answer.status_code not in {409, 429, 503}]
    assert winner.is_success, winner.text

    if "asset" in winner.json():
        gone = await world.libraries[0].delete(f"/v1/assets/{winner.json()['asset']['id']}")
    else:
        gone = await world.schedulers[0].delete(f"/v1/tune/{winner.json()['id']}")
    assert gone.is_success, gone.text
    again = await taken("dog")
    assert [answer.is_success for answer in again].count(True) == 1, "the name is free again, and one gets it"
