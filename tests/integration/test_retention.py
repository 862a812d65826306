"""Rows that are kept for a time only are deleted after it, in batches, and none that is still needed."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, insert, select, text, update

from services.inference import repository as inference
from services.scheduler.settings import SchedulerSettings
from services.scheduler.watch import Reconciler
from services.scheduler.webhooks.service import Webhooks
from services.upload import repository as upload
from services.upload.settings import UploadSettings
from shared.accounts.quotas import admit_asset, admit_bytes, admit_images, admit_tune
from shared.blobs import rows as blob_rows
from shared.blobs.references import referenced
from shared.blobs.store import Blobs
from shared.database import retention
from shared.database.sessions import Database
from shared.database.tables import (
    INBOXES,
    Asset,
    Base,
    Blob,
    Context,
    Generation,
    Sample,
    Tune,
    TuneEvent,
    TuneFile,
    WebhookDelivery,
)
from shared.ids import new_id
from shared.tunes import queue
from tests.support.bad_rows import refuse_changes
from tests.support.scheduler_world import SchedulerWorld, make_world
from tests.support.upload_world import UploadWorld

KEPT_S = 3600.0
AGO = func.now() - timedelta(days=30)
INDEXES = {
    "ix_assets_staging_key",
    "ix_checkpoints_blob_key",
    "ix_generations_in_flight",
    "pk_account_usage",
    "ix_tunes_unfinished",
}


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_BATCH", 2)


@pytest.fixture
async def world(
    make_settings: Callable[..., SchedulerSettings], database_url: str, blobs: Blobs
) -> AsyncIterator[SchedulerWorld]:
    kept = {"tune_events_kept_s": KEPT_S, "deleted_kept_s": KEPT_S, "webhook_kept_s": KEPT_S}
    async with make_world(make_settings, database_url, blobs, **kept) as world:
        yield world


async def rows(database: Database, kind: type[Base], *where: Any) -> int:
    async with database.begin() as session:
        return await session.scalar(select(func.count()).select_from(kind).where(*where)) or 0


async def cancelled(world: SchedulerWorld, name: str, *, deleted: bool = False) -> str:
    tune_id = (await world.create(name))["id"]
    await world.client.post(f"/v1/tune/{tune_id}/cancel")
    if deleted:
        await world.client.delete(f"/v1/tune/{tune_id}")
    return tune_id


async def test_old_events_of_ended_tunes_are_deleted_but_for_the_last(world: SchedulerWorld) -> None:
    ended, waiting = [await cancelled(world, f"ended-{i}") for i in range(3)], (await world.create("waiting"))["id"]
    async with world.database.begin() as session:
        await session.execute(update(TuneEvent).values(occurred_at=AGO))
    late = await cancelled(world, "late")

    await Reconciler(world.database, world.service).forget()

    for tune_id in ended:
        assert [kind for _, kind in await world.events(tune_id)] == ["tune.cancelled"]
    assert len(await world.events(waiting)) == 1
    assert len(await world.events(late)) == 2


async def test_the_rows_of_a_tune_that_was_deleted_long_ago_are_deleted(world: SchedulerWorld) -> None:
    old = [await cancelled(world, f"old-{i}", deleted=True) for i in range(3)]
    await world.put_row("tunes/sample.png", owner=Context.TUNES)
    async with world.database.begin() as session:
        session.add(Sample(tune_id=old[0], step=1, number=0, blob_key="tunes/sample.png"))
        delivery = {"id": new_id("msg"), "tune_id": old[0], "sequence": 1, "kind": "start", "url": "", "body": "{}"}
        await session.execute(insert(WebhookDelivery).values(delivery))
        await session.execute(update(Tune).values(deleted_at=AGO))
        await session.execute(update(Blob).where(Blob.owner == Context.TUNES).values(state="deleted", deleted_at=AGO))
    late, kept = await cancelled(world, "late", deleted=True), await cancelled(world, "kept")

    await Reconciler(world.database, world.service).forget()

    async with world.database.begin() as session:
        assert set(await session.scalars(select(Tune.id))) == {late, kept}
        assert set(await session.scalars(select(TuneFile.tune_id))) == {late, kept}
    assert await rows(world.database, Blob, Blob.owner == Context.TUNES) == 0


async def test_a_row_that_cannot_be_deleted_holds_up_no_other(world: SchedulerWorld) -> None:
    old = [await cancelled(world, f"old-{i}", deleted=True) for i in range(5)]
    async with world.database.begin() as session:
        await session.execute(update(Tune).values(deleted_at=AGO))
    await refuse_changes(world.database, "tunes", *old[:2])

    await Reconciler(world.database, world.service).forget()

    async with world.database.begin() as session:
        assert sorted(await session.scalars(select(Tune.id))) == old[:2]


async def test_old_records_of_handled_events_and_ended_deliveries_are_deleted(world: SchedulerWorld) -> None:
    tune_id = (await world.create())["id"]
    deliveries = [
        {"id": new_id("msg"), "tune_id": tune_id, "sequence": number, "kind": "start", "url": "", "body": "{}"}
        for number in range(5)
    ]
    table = INBOXES[Context.TUNES]
    events = [{"event_id": uuid4(), "consumer": "c", "topic": "tunes", "partition": 0} for _ in range(5)]
    async with world.database.begin() as session:
        await session.execute(insert(WebhookDelivery), deliveries)
        await session.execute(update(WebhookDelivery).values(state="delivered", ended_at=AGO))
        await session.execute(insert(WebhookDelivery).values(deliveries[0] | {"id": new_id("msg"), "sequence": 9}))
        await session.execute(insert(table), events)
        await session.execute(update(table).values(received_at=AGO))
        await session.execute(insert(table).values(events[0] | {"event_id": uuid4()}))

    await Reconciler(world.database, world.service).forget()
    await Webhooks(world.database, world.notifications, world.settings).forget()

    assert await rows(world.database, WebhookDelivery) == 1
    async with world.database.begin() as session:
        assert await session.scalar(select(func.count()).select_from(table)) == 1


async def test_old_requests_for_images_are_deleted_with_their_prompts(world: SchedulerWorld) -> None:
    row = {"account_id": world.account_id, "engine": "sd", "affinity": "a", "inputs": {}}
    async with world.database.begin() as session:
        for number in range(5):
            session.add(Generation(id=f"old-{number}", state="succeeded", result={}, finished_at=AGO, **row))
        session.add(Generation(id="late", state="succeeded", result={}, finished_at=func.now(), **row))
        session.add(Generation(id="waiting", state="queued", created_at=AGO, **row))

    await retention.forget(world.database, "images", inference.expired(KEPT_S))

    async with world.database.begin() as session:
        assert set(await session.scalars(select(Generation.id))) == {"late", "waiting"}


async def test_assets_that_were_deleted_long_ago_are_deleted_with_the_rows_of_their_blobs(
    make_settings: Callable[..., UploadSettings], database_url: str, blobs: Blobs
) -> None:
    database = Database(database_url)
    world = await UploadWorld.build(make_settings(UploadSettings, deleted_kept_s=KEPT_S), database, blobs)
    publishing = await world.add_trained_tune()
    for number in range(3):
        await world.put_asset(world.account_id, f"old-{number}")
    await world.put_asset(world.account_id, "lora", "lora", tune_id=publishing)
    async with database.begin() as session:
        await session.execute(update(Asset).values(status="deleted", deleted_at=AGO))
        await session.execute(update(Blob).values(state="deleted", deleted_at=AGO))
    await world.put_asset(world.account_id, "kept")
    await world.put_row("assets/kept-too")

    await world.reconciler.forget()

    async with database.begin() as session:
        assert set(await session.scalars(select(Asset.name))) == {"lora", "kept"}, (
            "a tune that has not ended needs its LoRA's row"
        )
        assert len(set(await session.scalars(select(Blob.key).where(Blob.key.like("assets/%/old-%"))))) == 0
        assert await session.scalar(select(func.count()).select_from(Blob)) == 5
    await world.close()
    await database.close()


async def test_the_statements_of_busy_loops_and_quotas_read_no_whole_table(world: SchedulerWorld) -> None:
    """PostgreSQL reads small tables whole, unless it must not; then it does so only where no index fits."""
    statements: list[str] = []
    async with world.database.begin() as session:
        await session.execute(text("LOAD 'auto_explain'"))
        for setting, value in (("enable_seqscan", "off"), ("client_min_messages", "log")):
            await session.execute(text(f"SET LOCAL {setting} = {value}"))
        for setting, value in (("log_min_duration", "0"), ("log_level", "notice")):
            await session.execute(text(f"SET LOCAL auto_explain.{setting} = '{value}'"))
        raw = await session.connection()
        driver = (await raw.get_raw_connection()).driver_connection
        assert driver is not None
        driver.add_log_listener(lambda _connection, message: statements.append(str(message)))
        await referenced(session, {"assets/a", "assets/b"})
        await admit_tune(session, world.account_id, world.settings)
        await admit_images(session, world.account_id, world.settings, 1)
        await admit_bytes(session, world.account_id, world.settings, 1)
        await admit_asset(session, world.account_id, world.settings, declared_bytes=1, most_bytes=1)
        await queue.pick(session, running_per_account=1, without=[])
        await upload.page(session, world.account_id, upload.Filters(is_public=True), limit=10, offset=0)
        await upload.unregistered_tunes(session, 1, after="", limit=10)
        await blob_rows.pin_existing(session, {"assets/a"})

    assert len(statements) > 8
    plans = "\n".join(statements)
    assert "Seq Scan on" not in plans
    assert {name for name in INDEXES if name not in plans} == set()
