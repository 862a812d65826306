"""Intake and registration end: what cannot be checked or registered has an error after some attempts, and leaves no copies."""

import asyncio
import gzip
import resource
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import select, text

from services.upload import consumers, repository
from services.upload.intake.check import Intake
from services.upload.intake.register import Registration
from services.upload.settings import UploadSettings
from services.upload.work import WorkQueue
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Asset, LoraRegistration
from shared.errors import DiskError, UnavailableError
from shared.messaging.events import TuneTrained
from tests.support.hostile_files import checkpoint_tar, safetensors_file, tar_file, tar_header
from tests.support.upload_world import UploadWorld, lora, png

SD15 = {"engine": "image/stable-diffusion-v1-5"}
ATTEMPTS = 3
LARGE_LORA = lora(rank=1024)
"""Of two mebibytes."""


@pytest.fixture
async def world(make_settings: Callable[..., UploadSettings], blobs: Blobs, database_url: str) -> AsyncIterator[UploadWorld]:
    database = Database(database_url)
    settings = make_settings(
        UploadSettings, intake_attempts=ATTEMPTS, registration_attempts=ATTEMPTS, registration_bound_s=60, intake_bound_s=60
    )
    world = await UploadWorld.build(settings, database, blobs)
    yield world
    await world.close()
    await database.close()


@contextmanager
def _small_disk() -> Generator[None]:
    """Let no file of this process have more than a mebibyte: a write to a full disk fails in the same place."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def _copies(world: UploadWorld) -> list[str]:
    return [item.key for item in await world.blobs.list("assets/asset_")]


@pytest.mark.parametrize("asset_type", ["lora", "file"])
async def test_an_upload_that_the_disk_cannot_hold_ends_in_error_and_leaves_no_copy(world: UploadWorld, asset_type: str) -> None:
    asset_id = await world.send(LARGE_LORA if asset_type == "lora" else bytes(2**21), "style", asset_type, data=SD15)

    with _small_disk():
        for _ in range(ATTEMPTS - 1):
            with pytest.raises(DiskError):
                await world.intake.check(asset_id)
            assert await _copies(world) == []
            assert (await world.row(asset_id)).status == "uploaded"
        await world.intake.check(asset_id)

    row = await world.row(asset_id)
    assert (row.status, await _copies(world)) == ("error", [])
    assert "could not be checked in 3 attempts: File too large; create the asset again" in row.status_details
    assert [kind for kind, _ in await world.waiting_events()].count("asset.rejected") == 1


async def test_an_upload_is_checked_once_the_disk_has_room_again(world: UploadWorld) -> None:
    asset_id = await world.send(LARGE_LORA, "style", "lora", data=SD15)
    with _small_disk(), pytest.raises(DiskError):
        await world.intake.check(asset_id)

    await world.intake.check(asset_id)

    assert ((await world.row(asset_id)).status, len(await _copies(world))) == ("ready", 1)


async def test_an_upload_that_ends_its_process_each_time_ends_in_error(world: UploadWorld) -> None:
    asset_id = await world.send(lora(), "style", "lora", data=SD15)
    for _ in range(ATTEMPTS):
        async with world.database.begin() as session:
            await repository.claim_intake(session, asset_id)

    await world.intake.check(asset_id)

    row = await world.row(asset_id)
    assert (row.status, "ended in each of 3 attempts" in row.status_details) == ("error", True)


async def test_an_outage_of_the_store_uses_up_no_attempt(
    world: UploadWorld, make_settings: Callable[..., UploadSettings]
) -> None:
    asset_id, tune_id = await world.send(lora(), "style", "lora", data=SD15), await world.add_trained_tune()
    unavailable = Blobs.from_settings(make_settings(UploadSettings, s3_endpoint="http://127.0.0.1:1"))
    intake = Intake(world.database, unavailable, world.settings)
    registration = Registration(world.database, unavailable, world.settings)

    for _ in range(ATTEMPTS + 1):
        with pytest.raises(UnavailableError):
            await intake.check(asset_id)
        with pytest.raises(UnavailableError):
            await registration.register(tune_id)
    await unavailable.close()
    await world.intake.check(asset_id)
    await world.registration.register(tune_id)

    assert (await world.row(asset_id)).status == "ready"
    assert (await world.shown("sks1-dog"))["status"] == "ready"


async def test_a_rejected_upload_leaves_no_copy(world: UploadWorld) -> None:
    asset_id = await world.send(b"nothing" * 100, "style", "lora", data=SD15)

    await world.intake.check(asset_id)

    assert ((await world.row(asset_id)).status, await _copies(world)) == ("rejected", [])


async def test_an_upload_in_hand_is_not_started_a_second_time(world: UploadWorld) -> None:
    asset_id = await world.send(lora(), "style", "lora", data=SD15)
    inspect = world.intake._inspect

    async def inspect_slowly(*arguments: object) -> object:
        await _age(world, "assets", "updated_at", "1 hour")
        await world.intake.heartbeat()
        async with world.database.begin() as session:
            assert list(await repository.without_verdict(session, 60, 10)) == []
        return await inspect(*arguments)  # pyright: ignore[reportArgumentType]

    world.intake._inspect = inspect_slowly  # pyright: ignore[reportAttributeAccessIssue]
    await world.intake.check(asset_id)

    assert (await world.row(asset_id)).status == "ready"


async def test_each_attempt_waits_longer_for_the_next(world: UploadWorld) -> None:
    asset_id = await world.send(lora(), "style", "lora", data=SD15)
    async with world.database.begin() as session:
        for _ in range(2):
            await repository.claim_intake(session, asset_id)
    found: list[int] = []
    for passed in ("90 seconds", "130 seconds"):
        await _age(world, "assets", "updated_at", passed)
        async with world.database.begin() as session:
            found.append(len(await repository.without_verdict(session, 60, 10)))

    assert found == [0, 1]


async def test_a_lora_that_the_disk_cannot_hold_fails_its_tune_and_leaves_no_copy(world: UploadWorld) -> None:
    tune_id = await world.add_trained_tune(LARGE_LORA)

    with _small_disk():
        for _ in range(ATTEMPTS - 1):
            with pytest.raises(DiskError):
                await world.registration.register(tune_id)
            assert await _copies(world) == []
            await _age(world, "lora_registrations", "tried_at", "1 hour")
        await world.registration.register(tune_id)

    [(kind, event)] = await world.waiting_events()
    assert (kind, event["tune_id"], await _copies(world)) == ("asset.rejected", tune_id, [])
    assert "could not be registered in 3 attempts: File too large" in event["reason"]
    assert await _registrations(world) == []


async def test_a_lora_that_ends_its_process_each_time_fails_its_tune(world: UploadWorld) -> None:
    tune_id = await world.add_trained_tune()
    for _ in range(ATTEMPTS):
        async with world.database.begin() as session:
            assert await repository.claim_registration(session, tune_id, 60)
        await _age(world, "lora_registrations", "tried_at", "1 hour")

    await world.registration.register(tune_id)

    [(kind, event)] = await world.waiting_events()
    assert (kind, "ended in each of 3 attempts" in event["reason"]) == ("asset.rejected", True)


async def test_many_replicas_that_find_the_same_late_tune_make_one_attempt(world: UploadWorld) -> None:
    tune_id = await world.add_trained_tune()
    replicas = [Registration(world.database, world.blobs, world.settings) for _ in range(8)]

    await asyncio.gather(*(replica.register(tune_id) for replica in replicas))

    assert [kind for kind, _ in await world.waiting_events()] == ["asset.ready"]
    assert len(await _copies(world)) == 1
    assert await _registrations(world) == []


async def test_slow_uploads_keep_no_tune_from_its_lora(world: UploadWorld) -> None:
    tune_id = await world.add_trained_tune()
    uploads, loras, blocked = WorkQueue(2), WorkQueue(1), asyncio.Event()
    group = consumers.create(world.database, world.settings, uploads, loras, world.intake, world.registration)
    handler, gate = group._handlers[TuneTrained.type]

    async def check(_asset_id: str) -> None:
        await blocked.wait()

    for number in range(200):
        uploads.put(f"asset_{number}", check)
    working = [asyncio.create_task(queue.run()) for queue in (uploads, loras)]
    async with asyncio.timeout(60):
        assert gate is not None
        await gate()
        async with world.database.begin() as session:
            await handler(session, TuneTrained.model_construct(tune_id=tune_id, account_id=str(world.account_id)))
        while not await _has_lora(world):
            await asyncio.sleep(0.02)
    for task in working:
        task.cancel()
    await asyncio.gather(*working, return_exceptions=True)

    assert not blocked.is_set()


LONG_NUMBERS = b'{"a":[' + b",".join([b"9" * 4000] * 1000) + b"]}"
HOSTILE = {
    "lora": (safetensors_file(LONG_NUMBERS), "a number of 4000 digits, where at most 20 are allowed"),
    "vae": (safetensors_file(b"[" * 10**6), "nests its lists and objects too deeply"),
    "textual_inversion": (safetensors_file({"\ud800": {}}), "not the JSON object"),
    "checkpoint": (checkpoint_tar({"unet/a.json": LONG_NUMBERS}), "unet/a.json holds a number of 4000 digits"),
}


@pytest.mark.parametrize("asset_type", HOSTILE)
async def test_hostile_weights_are_rejected_with_the_reason(world: UploadWorld, asset_type: str) -> None:
    content, reason = HOSTILE[asset_type]
    asset_id = await world.send(content, "weights", asset_type, data=SD15)

    await world.intake.check(asset_id)

    row = await world.row(asset_id)
    assert (row.status, reason in row.status_details) == ("rejected", True), row.status_details


async def test_a_member_of_a_pebibyte_is_rejected(world: UploadWorld) -> None:
    content = tar_file(tar_header(size=b"\x80" + (2**50).to_bytes(11)))
    asset_id = await world.send(content, "weights", "checkpoint", data=SD15)

    await world.intake.check(asset_id)

    row = await world.row(asset_id)
    assert (row.status, "which do not fit in the file's" in row.status_details) == ("rejected", True)


async def test_an_image_that_is_stored_compressed_is_not_unpacked(world: UploadWorld) -> None:
    created = await world.create()
    packed = gzip.compress(png())
    async with httpx.AsyncClient() as store:
        await store.put(created["transfer_api"]["put_url"], content=packed, headers={"Content-Encoding": "gzip"})
    asset_id = created["asset"]["id"]
    await world.client.post(f"/v1/assets/{asset_id}/complete-upload", json={})

    await world.intake.check(asset_id)

    row = await world.row(asset_id)
    assert row.status == "rejected"
    assert row.status_details.startswith("the file is not an image: it is a file compressed with gzip; decompress it")


async def _age(world: UploadWorld, table: str, column: str, by: str) -> None:
    async with world.database.begin() as session:
        await session.execute(text(f"UPDATE {table} SET {column} = now() - interval '{by}'"))


async def _registrations(world: UploadWorld) -> list[str]:
    async with world.database.begin() as session:
        return list(await session.scalars(select(LoraRegistration.tune_id)))


async def _has_lora(world: UploadWorld) -> bool:
    async with world.database.begin() as session:
        return await session.scalar(select(Asset.id).where(Asset.tune_id.is_not(None))) is not None
