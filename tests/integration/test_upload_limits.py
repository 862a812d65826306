"""The limit of stored bytes is checked when an upload is completed, and a retried creation makes one asset."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from services.upload.settings import UploadSettings
from services.upload.staging import StagingCheck
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import IDEMPOTENCY, Account, Context
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

    # SDKs retry a 429, and the reason is the same each time.
    refused = [await world.client.post(complete, json={}) for _ in range(2)][-1]

    assert (refused.status_code, refused.json()["code"]) == (429, "limit_exceeded")
    assert f"{len(IMAGE) + 1} are allowed" in refused.json()["detail"]
    assert int(refused.headers["Retry-After"]) > 0
    assert (await world.shown(asset_id))["status"] == "ready_to_upload"
    # What does not fit is not kept.
    assert await StagingCheck(world.database, world.blobs, grace_s=0).run_once() == [f"staging/file/{asset_id}"]
    assert await world.blobs.size(f"staging/file/{asset_id}") is None
    await world.client.delete(f"/v1/assets/{first}")
    async with httpx.AsyncClient() as store:
        await store.put(second["transfer_api"]["put_url"], content=IMAGE)
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


async def test_uploads_that_are_never_completed_count_with_what_they_reserve(world: UploadWorld) -> None:
    created = await world.create("first", size_bytes=len(IMAGE))
    body = {"name": "second", "asset_type": "file", "data": {"asset_type": "file"}, "size_bytes": 2}

    refused = await world.client.post("/v1/assets", json=body)

    assert (refused.status_code, refused.json()["code"]) == (429, "limit_exceeded")
    assert refused.json()["detail"].startswith("max_stored_bytes: ")
    # One byte is left, and an upload without a size reserves it.
    await world.create("third")
    assert (await world.client.post("/v1/assets", json=body | {"size_bytes": 1})).status_code == 429
    await world.client.delete(f"/v1/assets/{created['asset']['id']}")
    assert (await world.client.post("/v1/assets", json=body)).status_code == 200


async def test_an_upload_that_is_larger_than_it_reserved_is_deleted(world: UploadWorld) -> None:
    created = await world.create("small", size_bytes=10)
    gone = await world.create("gone", size_bytes=10)
    good = await world.create("good", size_bytes=10)
    await world.client.delete(f"/v1/assets/{gone['asset']['id']}")
    async with httpx.AsyncClient() as store:
        for one, size in ((created, 11), (gone, 1), (good, 10)):
            await store.put(one["transfer_api"]["put_url"], content=b"x" * size)
    keys = [f"staging/file/{one['asset']['id']}" for one in (created, gone, good)]

    deleted = await StagingCheck(world.database, world.blobs, grace_s=0).run_once()

    assert sorted(deleted) == sorted(keys[:2])
    assert [await world.blobs.size(key) for key in keys] == [None, None, 10]


async def test_an_upload_over_its_declared_size_is_refused_and_deleted(world: UploadWorld) -> None:
    created = await world.create("small", size_bytes=10)
    asset_id = created["asset"]["id"]
    async with httpx.AsyncClient() as store:
        await store.put(created["transfer_api"]["put_url"], content=b"x" * 11)

    refused = await world.client.post(f"/v1/assets/{asset_id}/complete-upload", json={})

    assert refused.status_code == 422
    assert "the upload has 11 bytes; its size_bytes was 10" in refused.text
    assert await world.blobs.size(f"staging/file/{asset_id}") is None


async def test_uploads_in_parts_are_aborted_when_their_parts_are_too_many(world: UploadWorld) -> None:
    created = await world.create("parts", size_bytes=10)
    key = f"staging/file/{created['asset']['id']}"
    client = world.blobs._client
    upload_id = client._create_multipart_upload(world.blobs.bucket, key, {})
    for number in (1, 2):
        client._upload_part(world.blobs.bucket, key, b"x" * 6, {}, upload_id, number)

    assert await StagingCheck(world.database, world.blobs, grace_s=0).run_once() == [key]

    assert await world.blobs.uploads_in_parts("staging/") == {}


async def test_the_number_of_assets_is_limited(world: UploadWorld) -> None:
    async with world.database.begin() as session:
        await session.execute(update(Account).where(Account.id == world.account_id).values(max_assets=1))
    await world.create("first", size_bytes=1)

    refused = await world.client.post("/v1/assets", json={"name": "b", "asset_type": "file", "data": {}, "size_bytes": 1})

    assert refused.status_code == 429
    assert refused.json()["detail"].startswith("max_assets: the account has 1 assets; 1 are allowed")
