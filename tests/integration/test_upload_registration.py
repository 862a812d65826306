"""Registration and the reconciler: a trained LoRA is registered once, and lost work is found and done."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import func, select, text, update

from services.upload.settings import UploadSettings
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Asset, AssetName, Tune
from tests.support.upload_world import LORA, UploadWorld, lora, png


@pytest.fixture
async def world(make_settings: Callable[..., UploadSettings], blobs: Blobs, database_url: str) -> AsyncIterator[UploadWorld]:
    database = Database(database_url)
    settings = make_settings(UploadSettings, intake_bound_s=60, registration_bound_s=60)
    world = await UploadWorld.build(settings, database, blobs)
    yield world
    await world.close()
    await database.close()


async def test_a_trained_lora_is_registered_under_the_name_of_its_tune(world: UploadWorld) -> None:
    tune_id = await world.add_trained_tune()

    await world.registration.register(tune_id)

    shown = await world.shown("sks1-dog")
    assert (shown["status"], shown["asset_type"], shown["size_bytes"]) == ("ready", "lora", len(LORA))
    assert shown["data"] == {
        "asset_type": "lora",
        "engine": "image/stable-diffusion-v1-5",
        "file_format": "safetensors",
        "data_type": "fp16",
        "trigger_words": ["sks1"],
        "checkpoint": "asset_base",
        "base_sha256": "ab" * 32,
        "shape_class": "sd15-3f2a9c1d",
        "rank": 8,
        "key_format": "diffusers",
    }
    row = await world.row(shown["id"])
    assert row.blob_key == f"assets/{row.id}/lora.safetensors"
    assert await world.blobs.get_bytes(row.blob_key or "", max_bytes=100_000) == LORA
    kind, event = (await world.waiting_events())[-1]
    assert (kind, event["asset_id"], event["tune_id"], event["name"]) == ("asset.ready", row.id, tune_id, "sks1-dog")
    async with world.database.begin() as session:
        holder = await session.get_one(AssetName, (row.account_id, "sks1-dog"))
    assert (holder.holder_kind, holder.holder_id) == ("asset", row.id)


async def test_concurrent_and_repeated_registrations_make_one_asset(world: UploadWorld) -> None:
    tune_id = await world.add_trained_tune()

    await asyncio.gather(*(world.registration.register(tune_id) for _ in range(4)))
    await world.registration.register(tune_id)

    async with world.database.begin() as session:
        assets = (await session.scalars(select(Asset))).all()
    assert len(assets) == 1
    # Each one publishes the event, since that of the first may be the one that was lost; it is the same event each time.
    published = {(kind, event["asset_id"], event["version"]) for kind, event in await world.waiting_events()}
    assert published == {("asset.ready", assets[0].id, 1)}
    states = [await world.blob_state(item.key) for item in await world.blobs.list("assets/asset_")]
    assert states.count("committed") == 1


async def test_a_lora_whose_bytes_changed_is_not_registered(world: UploadWorld) -> None:
    tune_id = await world.add_trained_tune(lora(rank=4))

    await world.registration.register(tune_id)

    [(kind, event)] = await world.waiting_events()
    assert (kind, event["tune_id"]) == ("asset.rejected", tune_id)
    assert "SHA-256" in event["reason"]
    assert (await world.client.get("/v1/assets")).json()["total"] == 0


async def test_a_lora_that_is_missing_from_the_store_is_not_registered(world: UploadWorld) -> None:
    tune_id = await world.add_trained_tune()
    await world.blobs.delete(f"tunes/{tune_id}/1/lora.safetensors")

    await world.registration.register(tune_id)

    [(kind, event)] = await world.waiting_events()
    assert (kind, event["tune_id"]) == ("asset.rejected", tune_id)


async def test_a_tune_that_ended_meanwhile_gets_no_asset(world: UploadWorld) -> None:
    tune_id = await world.add_trained_tune()
    async with world.database.begin() as session:
        await session.execute(update(Tune).values(state="failed", ended_at=func.now()))

    await world.registration.register(tune_id)

    assert await world.waiting_events() == []


async def _age(world: UploadWorld, column: str, table: str) -> None:
    """Set the column of every row back by two days."""
    async with world.database.begin() as session:
        await session.execute(text(f"UPDATE {table} SET {column} = {column} - interval '2 days'"))


async def test_a_trained_tune_whose_event_was_lost_is_registered(world: UploadWorld) -> None:
    tune_id = await world.add_trained_tune()
    working = asyncio.create_task(world.queue.run())
    await world.reconciler.run_once()
    assert await world.waiting_events() == []

    await _age(world, "trained_at", "tunes")
    await world.reconciler.run_once()
    async with asyncio.timeout(20):
        while not (events := await world.waiting_events()):
            await asyncio.sleep(0.02)
    working.cancel()

    assert [(kind, event["tune_id"]) for kind, event in events] == [("asset.ready", tune_id)]


async def test_the_event_of_an_upload_without_a_verdict_is_republished_once_per_bound(world: UploadWorld) -> None:
    asset_id = await world.send(png())
    await world.reconciler.run_once()
    published_first = [kind for kind, _ in await world.waiting_events()].count("asset.uploaded")

    await _age(world, "updated_at", "assets")
    await world.reconciler.run_once()
    await world.reconciler.run_once()

    events = [(kind, event["asset_id"], event["version"]) for kind, event in await world.waiting_events()][-2:]
    assert published_first == 1
    assert events == [("asset.uploaded", asset_id, 2)] * 2


async def test_an_upload_that_is_never_completed_is_deleted_and_its_name_free(world: UploadWorld) -> None:
    created = await world.create("cat")
    await world.reconciler.run_once()
    assert (await world.shown("cat"))["status"] == "ready_to_upload"

    await _age(world, "created_at", "assets")
    await world.reconciler.run_once()

    assert (await world.client.get("/v1/assets/cat")).status_code == 404
    assert await world.blob_state(f"staging/file/{created['asset']['id']}") == "orphaned"
    await world.create("cat")
