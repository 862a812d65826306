"""The limit of stored bytes is checked when an upload is completed, and a retried creation makes one asset."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from services.upload.settings import UploadSettings
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import IDEMPOTENCY, Context
from tests.support.upload_world import UploadWorld, png

IMAGE = png()


@pytest.fixture
async def world(make_settings: Callable[..., Any], blobs: Blobs, database_url: str) -> AsyncIterator[UploadWorld]:
    database = Database(database_url)
    settings = make_settings(UploadSettings, max_stored_bytes=len(IMAGE) + 1)
    world = await UploadWorld.build(settings, database, blobs)
    yield world
    await world.close()
    await database.close()


async def test_an_upload_over_the_limit_is_refused_until_other_assets_are_deleted(world: UploadWorld) -> None:
    first = await world.send(IMAGE, "first")
    second = await world.create("second")
    asset_id = second["asset"]["id"]
    async with httpx.AsyncClient() as store:
        await store.put(second["transfer_api"]["put_url"], content=IMAGE)
    complete = f"/v1/assets/{asset_id}/complete-upload"

    refused = await world.client.post(complete, json={})

    assert (refused.status_code, refused.json()["code"]) == (429, "limit_exceeded")
    assert f"{len(IMAGE) + 1} are allowed" in refused.json()["detail"]
    assert int(refused.headers["Retry-After"]) > 0
    assert (await world.shown(asset_id))["status"] == "ready_to_upload"
    await world.client.delete(f"/v1/assets/{first}")
    assert (await world.client.post(complete, json={})).status_code == 200
    assert (await world.client.post(complete, json={})).status_code == 200


async def test_a_retried_creation_returns_the_same_asset_and_stores_no_credentials(world: UploadWorld) -> None:
    body = {"name": "photo", "asset_type": "file", "data": {"asset_type": "file"}}
    request = {"json": body, "headers": {"Idempotency-Key": "k1"}}

    first, again = [await world.client.post("/v1/assets", **request) for _ in range(2)]

    assert (first.status_code, again.status_code) == (200, 200)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert first.json()["asset"] == again.json()["asset"]
    assert again.json()["transfer_api"]["put_url"]
    async with world.database.begin() as session:
        [kept] = (await session.execute(select(IDEMPOTENCY[Context.UPLOAD]))).all()
    assert (kept.body, kept.resource_id) == (None, first.json()["asset"]["id"])
    assert (await world.client.get("/v1/assets")).json()["total"] == 1
