"""One row that cannot be handled stops no round of a background task, and hides no other row."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import func, insert, select, update

from services.inference.service import ImageService
from services.inference.settings import InferenceSettings
from services.inference.worker import repository as worker
from services.inference.worker.repository import Choice
from services.scheduler.settings import SchedulerSettings
from services.scheduler.watch import Reconciler
from services.scheduler.webhooks.service import Webhooks
from services.trainer.settings import TrainerSettings
from services.upload.settings import UploadSettings
from shared.background import Background
from shared.blobs.store import Blobs
from shared.database import rounds
from shared.database.rounds import BadRowError
from shared.database.sessions import Database
from shared.database.tables import OUTBOXES, Asset, Blob, Context, Generation, Tune, WebhookDelivery
from shared.ids import new_id
from shared.messaging import outbox
from shared.messaging.events import AssetDeleted
from shared.messaging.relay import Relay
from shared.states import TuneState
from tests.support.bad_rows import refuse_changes
from tests.support.scheduler_world import SchedulerWorld, make_world
from tests.support.trainer_world import make_world as make_trainer_world
from tests.support.upload_world import UploadWorld
from tests.support.waiting import eventually
from tests.support.world import World

AGO = func.now() - timedelta(days=2)


@pytest.fixture(autouse=True)
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every page as large as the number of bad rows, so that they fill one."""
    monkeypatch.setattr(rounds, "PAGE", 2)


@pytest.fixture
async def world(
    make_settings: Callable[..., SchedulerSettings], database_url: str, blobs: Blobs
) -> AsyncIterator[SchedulerWorld]:
    async with make_world(make_settings, database_url, blobs, requeue_hint_s=1e-3, webhook_allow_private=True) as world:
        yield world


async def test_tunes_that_cannot_be_moved_hold_up_no_other(world: SchedulerWorld) -> None:
    image = await world.add_asset("photo", status="uploaded")
    tunes = [(await world.create(f"tune-{i}", files=[{"file_id": image}]))["id"] for i in range(3)]
    await refuse_changes(world.database, "tunes", *tunes[:2])
    await world.verdict(image, "ready")

    await Reconciler(world.database, world.service).run_once()

    assert [(await world.row(tune_id)).state for tune_id in tunes] == ["waiting_files", "waiting_files", "queued"]


async def test_a_ready_file_whose_bytes_are_gone_holds_up_no_other_tune(world: SchedulerWorld) -> None:
    lost, image = await world.add_asset("lost", status="uploaded"), await world.add_asset("photo", status="uploaded")
    tunes = [(await world.create(f"tune-{i}", files=[{"file_id": file}]))["id"] for i, file in enumerate((lost, image))]
    for file in (lost, image):
        await world.verdict(file, "ready")
    async with world.database.begin() as session:
        await session.execute(update(Blob).where(Blob.key == f"assets/{lost}/x.png").values(state="deleted"))

    await Reconciler(world.database, world.service).run_once()
    assert (await world.row(tunes[1])).state == "queued"

    async with world.database.begin() as session:
        await session.execute(update(Tune).where(Tune.id == tunes[0]).values(created_at=AGO))
    await Reconciler(world.database, world.service).run_once()
    assert (await world.row(tunes[0])).state == "failed", "an accepted tune ends"


async def test_published_and_queued_tunes_that_cannot_be_moved_hold_up_no_other(world: SchedulerWorld) -> None:
    trained = [(await world.create(f"trained-{i}"))["id"] for i in range(3)]
    queued = [(await world.create(f"queued-{i}"))["id"] for i in range(3)]
    for tune_id in trained:
        await world.train(tune_id)
        await world.add_asset(f"{tune_id}-lora", "lora", tune_id=tune_id)
    async with world.database.begin() as session:
        await session.execute(update(Tune).where(Tune.id.in_(queued)).values(updated_at=AGO))
    await refuse_changes(world.database, "tunes", *trained[:2], *queued[:2])
    await world.forget_events()

    await Reconciler(world.database, world.service).run_once()

    assert [(await world.row(tune_id)).state for tune_id in trained] == ["publishing", "publishing", "succeeded"]
    events = await world.waiting_events()
    assert [event["tune_id"] for kind, event in events if kind == "tune.queued"] == queued[2:]


async def test_a_delivery_that_cannot_be_claimed_holds_up_no_other(world: SchedulerWorld) -> None:
    called = asyncio.Event()
    server = await asyncio.start_server(lambda _reader, writer: (called.set(), writer.close()), "127.0.0.1", 0)
    hook = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    tunes = [(await world.create(f"tune-{i}", top={"webhook": hook}))["id"] for i in range(2)]
    deliveries = [
        {"id": new_id("msg"), "tune_id": tune_id, "sequence": 9, "kind": "start", "url": hook, "body": "{}"} for tune_id in tunes
    ]
    async with world.database.begin() as session:
        await session.execute(insert(WebhookDelivery), deliveries)
    await refuse_changes(world.database, "webhook_deliveries", deliveries[0]["id"])

    async with server, Background() as background, asyncio.timeout(20):
        background.run("webhooks", Webhooks(world.database, world.notifications, world.settings).run)
        await called.wait()


async def test_a_tune_that_cannot_be_claimed_holds_up_no_other(
    database_url: str, blobs: Blobs, make_settings: Callable[..., TrainerSettings], tmp_path: Path
) -> None:
    world = await make_trainer_world(database_url, blobs, make_settings(TrainerSettings), tmp_path)
    tunes = [await world.queue_tune() for _ in range(2)]
    await refuse_changes(world.database, "tunes", tunes[0])
    async with world.trainer():
        await world.until(tunes[1], TuneState.PUBLISHING)
    assert (await world.tune(tunes[0])).state == TuneState.QUEUED
    await world.database.close()


async def test_uploads_that_cannot_be_changed_hold_up_no_other(
    make_settings: Callable[..., UploadSettings], database_url: str, blobs: Blobs
) -> None:
    database = Database(database_url)
    world = await UploadWorld.build(make_settings(UploadSettings), database, blobs)
    late = [(await world.create(f"photo-{i}"))["asset"]["id"] for i in range(6)]
    sent, abandoned = late[:3], late[3:]
    async with database.begin() as session:
        await session.execute(update(Asset).values(created_at=AGO, updated_at=AGO))
        await session.execute(update(Asset).where(Asset.id.in_(sent)).values(status="uploaded", uploaded_at=AGO))
    await refuse_changes(database, "assets", *sent[:2], *abandoned[:2])
    await world.forget_events()

    await world.reconciler.run_once()

    events = {(kind, event["asset_id"]) for kind, event in await world.waiting_events()}
    assert events == {("asset.uploaded", sent[2]), ("asset.deleted", abandoned[2])}
    await world.close()
    await database.close()


@pytest.fixture
async def images(
    make_settings: Callable[..., InferenceSettings], database_url: str, blobs: Blobs
) -> AsyncIterator[tuple[ImageService, Database, list[str]]]:
    """The image API, and three requests that have waited for long; the first two cannot be read by a worker."""
    database, ids = Database(database_url), sorted(new_id("gen") for _ in range(3))
    account_id = await World(database=database, blobs=blobs).account("studio")
    async with database.begin() as session:
        for generation_id in ids:
            row = {"engine": "sd", "affinity": "a", "inputs": {}, "state": "queued", "version": 1, "updated_at": AGO}
            session.add(Generation(id=generation_id, account_id=account_id, **row))
    yield ImageService(make_settings(InferenceSettings), database, blobs), database, ids
    await database.close()


async def test_requests_that_cannot_be_changed_hold_up_no_other(images: tuple[ImageService, Database, list[str]]) -> None:
    service, database, ids = images
    await refuse_changes(database, "generations", *ids[:2])

    await service.reconcile()

    async with database.begin() as session:
        published = (await session.scalars(select(OUTBOXES[Context.IMAGES].c.key))).all()
    assert len(published) == 1


async def test_a_request_with_inputs_that_cannot_be_read_holds_up_no_other_and_fails(
    images: tuple[ImageService, Database, list[str]],
) -> None:
    service, database, ids = images
    for _ in range(3):
        passed_over: list[str] = []
        while len(passed_over) < len(ids):
            with pytest.raises(BadRowError) as refused:
                async with database.begin() as session:
                    choice = Choice(open_after_s=-9, without=passed_over)
                    await worker.claim(session, worker="w", token=uuid4(), claim_s=9, choice=choice)
            passed_over.append(refused.value.key)
            async with database.begin() as session:
                await worker.count_failed_claim(session, refused.value.key)
        assert sorted(passed_over) == ids

    for _ in ids:
        await service.reconcile()

    async with database.begin() as session:
        assert (await session.scalars(select(Generation.state))).all() == ["failed"] * 3


async def test_a_message_that_cannot_be_sent_holds_up_no_other(
    make_settings: Callable[..., UploadSettings], database_url: str, blobs: Blobs
) -> None:
    settings = make_settings(UploadSettings, outbox_poll_s=0.1)
    database, table = Database(database_url), OUTBOXES[Context.UPLOAD]
    bad = [
        {"topic": "assets", "headers": {"ce_type": 5}, "body": b"{}"},
        {"topic": "assets", "headers": {}, "body": bytes(2 << 20)},
        {"topic": "no-such-topic", "headers": {}, "body": b"{}"},
    ]
    async with database.begin() as session:
        for row in bad:
            await session.execute(insert(table).values(message_id=uuid4(), key="a", **row))
        await outbox.publish(session, Context.UPLOAD, AssetDeleted(asset_id=new_id("asset"), account_id="a", version=1))

    async def left() -> bool | None:
        async with database.begin() as session:
            return await session.scalar(select(func.count()).select_from(table)) == len(bad) or None

    async with Background() as background:
        background.run("relay", Relay(database, Context.UPLOAD, settings).run)
        await eventually(left, 30)
    async with database.begin() as session:
        resting = await session.scalar(select(func.count()).where(table.c.not_before > func.now() + timedelta(minutes=50)))
    assert resting == len(bad)
    await database.close()
