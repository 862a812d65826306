"""Unique names hold under a race (promise 13): of many requests for one name, to replicas of two services, one gets it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest

from services.scheduler import api
from services.scheduler.service import TuneService
from services.scheduler.settings import SchedulerSettings
from services.scheduler.whatif.service import WhatIfService
from services.upload.settings import UploadSettings
from shared.accounts import accounts, names
from shared.background import Background
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs, Stored
from shared.database.sessions import Database
from shared.database.tables import Asset, Context
from shared.http import app as web
from shared.http.auth import Authenticator
from shared.ids import new_id
from shared.settings import ServiceSettings
from tests.support.upload_world import UploadWorld

ENGINE = "image/stable-diffusion-v1-5"
REPLICAS = 2


@dataclass
class World:
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


async def add_asset(database: Database, account_id: UUID, name: str, asset_type: str, **more: Any) -> str:
    asset_id, key = new_id("asset"), f"assets/{name}/bytes"
    async with database.begin() as session:
        await blob_rows.stage(session, Context.UPLOAD, key)
        await blob_rows.commit(session, key, Stored("ab" * 32, 1))
        values = {"asset_type": asset_type, "name": name, "status": "ready", "blob_key": key, "sha256": "ab" * 32} | more
        session.add(Asset(id=asset_id, account_id=account_id, **values))
        await session.flush()
        await names.reserve(session, account_id, name, "asset", asset_id)
    return asset_id


@pytest.fixture
async def world(make_settings: Callable[..., ServiceSettings], database_url: str, blobs: Blobs) -> AsyncIterator[World]:
    databases = [Database(database_url) for _ in range(2 * REPLICAS)]
    upload_settings = make_settings(UploadSettings)
    assert isinstance(upload_settings, UploadSettings)
    uploads = [await UploadWorld.build(upload_settings, database, blobs) for database in databases[:REPLICAS]]
    async with databases[0].begin() as session:
        platform_id = await accounts.create_account(session, accounts.PLATFORM_ACCOUNT, is_platform=True)
        account_id = await accounts.create_account(session, "studio")
    data = {"asset_type": "checkpoint", "engine": ENGINE, "native_size_px": 64, "shape_class": "sd15-3f2a9c1d"}
    await add_asset(databases[0], platform_id, "base", "checkpoint", is_public=True, data=data)
    image_id = await add_asset(databases[0], account_id, "image", "file", data={"asset_type": "file"})
    schedulers: list[httpx.AsyncClient] = []
    for database in databases[REPLICAS:]:
        settings = make_settings(SchedulerSettings)
        assert isinstance(settings, SchedulerSettings)
        routes = api.router(database, TuneService(settings), WhatIfService(database, blobs, settings))
        app = web.create_app("scheduler", lifespan=lambda _app: Background(), routers=[routes])
        app.state.authenticator = Authenticator(database)
        headers = dict(uploads[0].client.headers)
        transport = httpx.ASGITransport(app)
        schedulers.append(httpx.AsyncClient(transport=transport, base_url="http://scheduler.test", headers=headers))
    yield World([one.client for one in uploads], schedulers, image_id)
    for closing in (*schedulers, *uploads):
        await (closing.close() if isinstance(closing, UploadWorld) else closing.aclose())
    for database in databases:
        await database.close()


@pytest.mark.parametrize("tries", [pytest.param(24, id="short"), pytest.param(200, id="long", marks=pytest.mark.long)])
async def test_of_many_assets_and_tunes_that_ask_for_a_name_at_once_one_gets_it(world: World, tries: int) -> None:
    async def taken(name: str) -> list[httpx.Response]:
        kinds: list[Callable[[int, str], Awaitable[httpx.Response]]] = [world.create_asset, world.create_tune]
        return list(await asyncio.gather(*(kinds[number % 2](number // 2, name) for number in range(tries))))

    answers = await taken("dog")
    assert sorted(answer.status_code for answer in answers)[1:] == [409] * (tries - 1)
    [winner] = [answer for answer in answers if answer.status_code != 409]
    assert winner.is_success, winner.text

    if "asset" in winner.json():
        gone = await world.libraries[0].delete(f"/v1/assets/{winner.json()['asset']['id']}")
    else:
        gone = await world.schedulers[0].delete(f"/v1/tune/{winner.json()['id']}")
    assert gone.is_success, gone.text
    again = await taken("dog")
    assert [answer.is_success for answer in again].count(True) == 1, "the name is free again, and one gets it"
