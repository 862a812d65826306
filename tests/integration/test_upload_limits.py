"""The limit of stored bytes is checked when an upload is completed, and a retried creation makes one asset."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, update

from services.upload.settings import UploadSettings
from services.upload.staging import StagingCheck
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import IDEMPOTENCY, Account, Context, PartUpload
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
    sizes = {"one": [[6, 6]], "two": [[6], [6]], "many": [[]] * 21, "good": [[6, 4]]}
    keys = {name: await _begin_parts(world, name, parts) for name, parts in sizes.items()}
    gone = await _begin_parts(world, "gone", [[1]])
    await world.client.delete(f"/v1/assets/{gone.rpartition('/')[2]}")

    refused = await StagingCheck(world.database, world.blobs, grace_s=0).run_once()

    assert sorted(refused) == sorted([keys["one"], keys["two"], keys["many"], gone])
    assert await world.blobs.uploads_in_parts(gone) == {}
    left = {name: await world.blobs.uploads_in_parts(key) for name, key in keys.items()}
    assert {name: list(uploads.values()) for name, uploads in left.items()} == {"one": [], "two": [], "many": [], "good": [10]}


async def test_parts_count_together_with_the_object_of_the_same_key(world: UploadWorld) -> None:
    key = await _begin_parts(world, "both", [[6]])
    await world.blobs.put_bytes(key, b"x" * 6)

    assert await StagingCheck(world.database, world.blobs, grace_s=0).run_once() == [key]

    assert await world.blobs.uploads_in_parts(key) == {}


async def test_a_key_is_asked_for_parts_until_its_credentials_have_ended(world: UploadWorld) -> None:
    late = await _begin_parts(world, "late", [])
    valid = await _begin_parts(world, "valid", [])
    async with world.database.begin() as session:
        past = func.now() - timedelta(minutes=2)
        await session.execute(update(PartUpload).where(PartUpload.staging_key == late).values(until=past))

    await StagingCheck(world.database, world.blobs, grace_s=0).run_once()

    async with world.database.begin() as session:
        assert set(await session.scalars(select(PartUpload.staging_key))) == {valid}


async def test_a_stranger_gets_no_way_to_upload_a_public_asset(world: UploadWorld) -> None:
    body = {"name": "shared", "asset_type": "file", "data": {}, "is_public": True, "size_bytes": 1}
    asset_id = (await world.admin.post("/v1/assets", json=body)).json()["asset"]["id"]

    for kind in ("presigned-url", "sts"):
        answer = await world.stranger.get(f"/v1/assets/{asset_id}?transfer_api_type={kind}")
        assert answer.json()["transfer_api"] == {"type": "presigned-url", "put_url": "", "get_url": ""}
    assert (await world.client.get(f"/v1/assets/{asset_id}")).json()["transfer_api"]["put_url"]


async def _begin_parts(world: UploadWorld, name: str, uploads: list[list[int]]) -> str:
    """Create an asset of 10 bytes with credentials, begin uploads with parts of these sizes, and return the key."""
    created = await world.create(name, size_bytes=10, transfer_api_type="sts")
    key = f"staging/file/{created['asset']['id']}"
    client = world.blobs._client
    for parts in uploads:
        upload_id = client._create_multipart_upload(world.blobs.bucket, key, {})
        for number, size in enumerate(parts, 1):
            client._upload_part(world.blobs.bucket, key, b"x" * size, {}, upload_id, number)
    return key


async def test_the_number_of_assets_is_limited(world: UploadWorld) -> None:
    async with world.database.begin() as session:
        await session.execute(update(Account).where(Account.id == world.account_id).values(max_assets=1))
    await world.create("first", size_bytes=1)

    refused = await world.client.post("/v1/assets", json={"name": "b", "asset_type": "file", "data": {}, "size_bytes": 1})

    assert refused.status_code == 429
    assert refused.json()["detail"].startswith("max_assets: the account has 1 assets; 1 are allowed")
