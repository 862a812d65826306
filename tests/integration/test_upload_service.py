"""The whole upload service as it is wired: HTTP, outbox, broker, intake and registration."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from services.upload.app import create_app
from services.upload.settings import UploadSettings
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Context, Tune
from shared.messaging import events, outbox
from shared.messaging.relay import Relay
from tests.support.upload_world import LORA, UploadWorld, png

_BOUND_S = 60


@pytest.fixture
async def world(make_settings: Callable[..., UploadSettings], blobs: Blobs, database_url: str) -> AsyncIterator[UploadWorld]:
    # The bounds are so long that the reconciler cannot do the work in place of the broker.
    settings = make_settings(UploadSettings, intake_bound_s=3600, registration_bound_s=3600)
    database = Database(database_url)
    world = await UploadWorld.build(settings, database, blobs)
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield world
    await world.close()
    await database.close()


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_BOUND_S):
        while not await condition():
            await asyncio.sleep(0.05)


async def test_an_upload_becomes_ready_or_rejected(world: UploadWorld) -> None:
    good, bad = await world.send(png(), "good"), await world.send(b"nothing", "bad")

    async def decided() -> bool:
        return {(await world.row(asset_id)).status for asset_id in (good, bad)} == {"ready", "rejected"}

    await _until(decided)

    assert (await world.shown("good"))["status"] == "ready"
    async with httpx.AsyncClient() as store:
        got = await store.get((await world.client.get("/v1/assets/good")).json()["transfer_api"]["get_url"])
    assert got.content.startswith(b"\x89PNG")


async def test_the_lora_of_a_trained_tune_is_registered(world: UploadWorld) -> None:
    tune_id = await world.add_trained_tune()
    async with world.database.begin() as session:
        tune = await session.get_one(Tune, tune_id)
        trained = events.TuneTrained(
            tune_id=tune_id,
            account_id=str(tune.account_id),
            version=9,
            epoch=1,
            name=tune.name,
            engine=tune.engine,
            trigger_word=tune.trigger_word,
            base_asset_id=tune.base_asset_id,
            base_sha256=tune.base_sha256,
            shape_class=tune.shape_class,
            lora_key=tune.lora_key or "",
            lora_sha256=tune.lora_sha256 or "",
            lora_size_bytes=len(LORA),
        )
        await outbox.publish(session, Context.TUNES, trained)
    relay = asyncio.create_task(Relay(world.database, Context.TUNES, world.settings).run())

    async def registered() -> bool:
        return (await world.client.get(f"/v1/assets/{tune.name}")).is_success

    await _until(registered)
    relay.cancel()
    await asyncio.gather(relay, return_exceptions=True)

    assert (await world.shown(tune.name))["data"]["trigger_words"] == ["sks1"]
