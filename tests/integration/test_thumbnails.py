"""Thumbnails of images in the library."""

import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image

from services.upload.settings import UploadSettings
from services.upload.thumbnails import Thumbnails
from shared.accounts import quotas
from shared.blobs.collector import BlobCollector
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Account, Context
from shared.errors import LimitError
from shared.scratch import Scratch
from tests.support.upload_world import UploadWorld, jpeg, png


@pytest.fixture
async def world(make_settings: Callable[..., UploadSettings], blobs: Blobs, database_url: str) -> AsyncIterator[UploadWorld]:
    database = Database(database_url)
    world = await UploadWorld.build(make_settings(UploadSettings), database, blobs)
    yield world
    await world.close()
    await database.close()


@pytest.fixture
def thumbnails(world: UploadWorld, tmp_path: Path) -> Thumbnails:
    return Thumbnails(world.database, world.blobs, Scratch(tmp_path))


async def urls(world: UploadWorld) -> dict[str, str]:
    [asset] = (await world.client.get("/v1/assets", params={"get_preview_urls": True})).json()["data"]
    return asset["data"]


async def test_an_image_gets_a_thumbnail_that_is_listed_and_counted(world: UploadWorld, thumbnails: Thumbnails) -> None:
    asset_id = await world.send(png((800, 400)))
    await thumbnails.run_once()
    assert (await world.row(asset_id)).thumbnail_attempts == 0
    await world.intake.check(asset_id)
    assert "thumbnail_url" not in await urls(world)

    await thumbnails.run_once()

    async with httpx.AsyncClient() as store:
        small = await store.get((await urls(world))["thumbnail_url"])
    image = Image.open(io.BytesIO(small.content))
    assert (image.format, image.size, small.headers["Content-Type"]) == ("WEBP", (384, 192), "image/webp")
    row = await world.row(asset_id)
    assert row.thumbnail_bytes == len(small.content)
    assert "thumbnail_url" not in (await world.client.get(f"/v1/assets/{asset_id}")).json()["asset"]["data"]
    limit = row.size_bytes + row.copy_bytes + row.thumbnail_bytes
    async with world.database.begin() as session:
        account = await session.get_one(Account, row.account_id)
        account.max_stored_bytes = limit + 1
        assert await quotas.admit_bytes(session, row.account_id, world.settings, 1) == 1
        with pytest.raises(LimitError):
            await quotas.admit_bytes(session, row.account_id, world.settings, 2)


async def test_a_thumbnail_is_made_once_and_deleted_with_its_image(world: UploadWorld, thumbnails: Thumbnails) -> None:
    asset_id = await world.send(jpeg())
    await world.intake.check(asset_id)
    await thumbnails.run_once()
    key = (await world.row(asset_id)).thumbnail_key
    assert key is not None
    await thumbnails.run_once()
    assert (await world.row(asset_id)).thumbnail_key == key
    collector = BlobCollector(world.database, world.blobs, Context.UPLOAD, prefixes=("assets/",), grace_s=0, staging_s=3600)
    await collector.collect()
    assert await world.blobs.size(key) is not None

    assert (await world.client.delete(f"/v1/assets/{asset_id}")).status_code == 200
    await collector.collect()

    assert await world.blobs.size(key) is None


async def test_an_image_whose_thumbnail_fails_holds_up_no_other(world: UploadWorld, thumbnails: Thumbnails) -> None:
    good, bad = [await world.send(png((64, 64)), name) for name in ("good", "bad")]
    for asset_id in (good, bad):
        await world.intake.check(asset_id)
    await world.blobs.delete((await world.row(bad)).blob_key or "")

    await thumbnails.run_once()

    assert (await world.row(good)).thumbnail_key is not None
    failed = await world.row(bad)
    assert (failed.status, failed.thumbnail_key, failed.thumbnail_attempts) == ("ready", None, 3)
