"""Deleting and collecting are safe (promise 14): every row's blob exists, and every old blob has a row."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from services.inference.app import create_app
from services.inference.settings import InferenceSettings
from shared.accounts import accounts
from shared.blobs import collector as collector_module
from shared.blobs import rows as blob_rows
from shared.blobs.collector import BlobCollector
from shared.blobs.store import Blobs
from shared.database.exclusive import alone
from shared.database.sessions import Database
from shared.database.tables import Asset, Blob, Context, Generation
from shared.errors import ConflictError, UnavailableError
from shared.settings import ServiceSettings
from tests.support.bad_rows import refuse_changes
from tests.support.fault_proxy import FaultProxy
from tests.support.waiting import eventually


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
async def account_id(database: Database) -> UUID:
    async with database.begin() as session:
        return await accounts.create_account(session, "someone")


@pytest.fixture
def collector(database: Database, blobs: Blobs) -> BlobCollector:
    return BlobCollector(database, blobs, Context.UPLOAD, prefixes=("assets/", "staging/"), grace_s=0, staging_s=0)


async def _store(database: Database, blobs: Blobs, key: str) -> None:
    async with database.begin() as session:
        await blob_rows.stage(session, Context.UPLOAD, key)
    stored = await blobs.put_bytes(key, key.encode())
    async with database.begin() as session:
        await blob_rows.commit(session, key, stored)


async def _orphan(database: Database, key: str) -> None:
    async with database.begin() as session:
        await blob_rows.orphan(session, key)


async def _state(database: Database, key: str) -> str | None:
    async with database.begin() as session:
        return await session.scalar(select(Blob.state).where(Blob.key == key))


def _asset(account_id: UUID, key: str, asset_id: str = "asset_a") -> Asset:
    return Asset(id=asset_id, account_id=account_id, asset_type="file", name=asset_id, status="ready", data={}, blob_key=key)


async def test_an_orphan_is_deleted_with_its_object(database: Database, blobs: Blobs, collector: BlobCollector) -> None:
    await _store(database, blobs, "assets/a")
    assert await collector.collect() == []

    await _orphan(database, "assets/a")

    assert await collector.collect() == ["assets/a"]
    assert await blobs.size("assets/a") is None
    assert await _state(database, "assets/a") == "deleted"


async def test_an_orphan_is_kept_for_the_grace_period(database: Database, blobs: Blobs) -> None:
    patient = BlobCollector(database, blobs, Context.UPLOAD, prefixes=("assets/",), grace_s=60, staging_s=60)
    await _store(database, blobs, "assets/a")
    await _orphan(database, "assets/a")

    assert await patient.collect() == []
    assert await blobs.size("assets/a") == 8


async def test_an_orphan_that_something_refers_to_is_kept(
    database: Database, blobs: Blobs, collector: BlobCollector, account_id: UUID
) -> None:
    await _store(database, blobs, "assets/a")
    async with database.begin() as session:
        session.add(_asset(account_id, "assets/a"))
    await _orphan(database, "assets/a")
    assert await collector.collect() == []

    async with database.begin() as session:
        await session.execute(update(Asset).values(blob_key=None, status="rejected"))

    assert await collector.collect() == ["assets/a"]


async def test_what_an_unfinished_generation_reads_is_kept(
    database: Database, blobs: Blobs, collector: BlobCollector, account_id: UUID
) -> None:
    await _store(database, blobs, "assets/lora")
    inputs = {"loras": [{"blob_key": "assets/lora", "weight": 0.8}]}
    async with database.begin() as session:
        session.add(Generation(id="g", account_id=account_id, engine="sd", affinity="a", inputs=inputs))
    await _orphan(database, "assets/lora")

    assert await collector.collect() == []


async def test_a_reference_that_is_not_committed_yet_is_not_missed(
    database: Database, blobs: Blobs, collector: BlobCollector, account_id: UUID
) -> None:
    await _store(database, blobs, "assets/a")
    async with database.begin() as session:
        await blob_rows.pin(session, ["assets/a"])
        # The owner orphans the blob while another transaction is about to refer to it.
        orphaning = asyncio.create_task(_orphan(database, "assets/a"))
        collected_meanwhile = await collector.collect()
        session.add(_asset(account_id, "assets/a"))
    await orphaning

    assert collected_meanwhile == []
    assert await collector.collect() == []
    assert await blobs.size("assets/a") == 8


async def test_what_is_being_collected_cannot_be_pinned(database: Database, blobs: Blobs) -> None:
    await _store(database, blobs, "assets/a")
    await _orphan(database, "assets/a")

    async with database.begin() as session:
        with pytest.raises(ConflictError, match="assets/a"):
            await blob_rows.pin(session, ["assets/a"])


async def test_what_a_dead_writer_staged_is_collected(database: Database, blobs: Blobs, collector: BlobCollector) -> None:
    async with database.begin() as session:
        await blob_rows.stage(session, Context.UPLOAD, "assets/a")
    await blobs.put_bytes("assets/a", b"half")

    assert await collector.collect() == ["assets/a"]
    assert await blobs.size("assets/a") is None


async def test_a_writer_whose_blob_was_collected_cannot_commit(
    database: Database, blobs: Blobs, collector: BlobCollector
) -> None:
    async with database.begin() as session:
        await blob_rows.stage(session, Context.UPLOAD, "assets/a")
    await collector.collect()
    stored = await blobs.put_bytes("assets/a", b"late")

    async with database.begin() as session:
        with pytest.raises(ConflictError):
            await blob_rows.commit(session, "assets/a", stored)
    with pytest.raises(ConflictError):
        async with database.begin() as session:
            await blob_rows.stage(session, Context.UPLOAD, "assets/a")


async def test_the_sweep_deletes_what_has_no_row(database: Database, blobs: Blobs, collector: BlobCollector) -> None:
    await _store(database, blobs, "assets/kept")
    await blobs.put_bytes("staging/file/written-late", b"x")
    await blobs.put_bytes("tunes/not-ours", b"x")

    # The store's times are whole seconds and its clock may be ahead, so an object can look too new to sweep.
    swept = await collector.sweep()
    while not swept.strays:
        swept = await collector.sweep()

    assert swept.strays == ["staging/file/written-late"]
    assert await blobs.size("assets/kept") == 11
    assert await blobs.size("tunes/not-ours") == 1


async def test_the_sweep_deletes_what_a_collector_that_died_after_its_commit_left(
    database: Database, blobs: Blobs, collector: BlobCollector
) -> None:
    await _store(database, blobs, "assets/a")
    async with database.begin() as session:
        await session.execute(update(Blob).values(state="deleted"))

    while not (await collector.sweep()).strays:
        pass

    assert await blobs.size("assets/a") is None


async def test_the_sweep_reports_a_row_whose_object_is_gone(database: Database, blobs: Blobs, collector: BlobCollector) -> None:
    await _store(database, blobs, "assets/a")
    await blobs.delete("assets/a")

    assert (await collector.sweep()).missing == ["assets/a"]


async def test_an_outage_of_the_store_leaks_no_object(
    database: Database, blobs: Blobs, make_settings: Callable[..., ServiceSettings]
) -> None:
    for key in ("assets/a", "assets/b"):
        await _store(database, blobs, key)
        await _orphan(database, key)
    endpoint = make_settings().s3_endpoint
    async with FaultProxy(urlsplit(endpoint).port or 80) as proxy:
        behind = Blobs.from_settings(make_settings(s3_endpoint=proxy.url(endpoint)))
        collector = BlobCollector(database, behind, Context.UPLOAD, prefixes=("assets/",), grace_s=0, staging_s=0)
        await proxy.down()
        with pytest.raises(UnavailableError):
            await collector.collect()
        assert await _state(database, "assets/a") == "deleting", "its object is still there"
        with pytest.raises(ConflictError):
            async with database.begin() as session:
                await blob_rows.stage(session, Context.UPLOAD, "assets/a")

        await proxy.heal()
        assert await collector.collect() == ["assets/a", "assets/b"]
        await behind.close()
    assert await blobs.list("assets/") == []


@pytest.mark.parametrize("state", ["orphaned", "staging"])
async def test_blobs_that_something_refers_to_hide_no_others(
    database: Database, blobs: Blobs, collector: BlobCollector, account_id: UUID, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr(collector_module, "_BATCH", 3)
    used = [f"assets/{number}" for number in range(6)]
    async with database.begin() as session:
        for key in used:
            await blob_rows.stage(session, Context.UPLOAD, key)
        await session.flush()
        session.add_all(
            Asset(
                id=key,
                account_id=account_id,
                asset_type="file",
                name=key,
                status="ready_to_upload",
                data={},
                staging_key=key,
            )
            for key in used
        )
        await blob_rows.stage(session, Context.UPLOAD, "assets/unused")
        await session.execute(update(Blob).values(state=state, orphaned_at=func.now() if state == "orphaned" else None))

    assert await collector.collect() == ["assets/unused"]


async def test_a_blob_that_cannot_be_collected_holds_up_no_other(
    database: Database, blobs: Blobs, collector: BlobCollector
) -> None:
    for key in ("assets/a", "assets/b", "assets/c"):
        await _store(database, blobs, key)
        await _orphan(database, key)
    await refuse_changes(database, "blobs", "assets/a", column="key")

    assert await collector.collect() == ["assets/b", "assets/c"]
    assert await blobs.size("assets/a") == 8


async def test_one_process_at_a_time_collects_and_sweeps(database: Database, collector: BlobCollector, blobs: Blobs) -> None:
    await _store(database, blobs, "assets/a")
    await _orphan(database, "assets/a")
    await blobs.put_bytes("assets/stray", b"x")
    async with alone(database, "collect upload") as first, alone(database, "sweep upload") as second:
        assert first
        assert second
        assert await collector.collect() == []
        assert await collector.sweep() == collector_module.Swept([], [])
    assert await collector.collect() == ["assets/a"]
    while not (await collector.sweep()).strays:
        pass


async def test_the_sweep_compares_the_whole_bucket_page_by_page(
    database: Database, blobs: Blobs, collector: BlobCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector_module, "_BATCH", 2)
    for number in range(7):
        await _store(database, blobs, f"assets/{number}/x")
    for number in (0, 3, 6):
        await blobs.delete(f"assets/{number}/x")
    strays = [f"assets/{number}/stray" for number in range(5)]
    for key in strays:
        await blobs.put_bytes(key, b"x")

    swept = await collector.sweep()
    found = swept.strays
    while len(found) < len(strays):
        found += (await collector.sweep()).strays

    assert sorted(found) == strays
    assert swept.missing == [f"assets/{number}/x" for number in (0, 3, 6)]
    assert len(await blobs.list("assets/")) == 4


async def test_images_without_a_row_are_swept(blobs: Blobs, make_settings: Callable[..., Any]) -> None:
    await blobs.put_bytes("generations/gen_lost/1/0.png", b"x")

    async def is_old_enough() -> bool | None:
        return (await blobs.list("generations/"))[0].age_s > 0 or None

    async def is_gone() -> bool | None:
        return await blobs.size("generations/gen_lost/1/0.png") is None or None

    # The store's times are whole seconds, so the object may look too new to a sweep.
    await eventually(is_old_enough)
    app = create_app(make_settings(InferenceSettings, generation_grace_s=0))
    async with app.router.lifespan_context(app):
        await eventually(is_gone)
