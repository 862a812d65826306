"""Every transition of an asset, written with the event that tells of it in one transaction.

| from | to | function |
| --- | --- | --- |
| | `ready_to_upload`, or `uploaded` for an import | `create` |
| | `ready` | `create_ready`, `create_lora_of_tune` |
| `ready_to_upload` | `uploaded` | `complete` |
| `uploaded`, an import without its bytes | `uploaded`, with its bytes | `complete_import` |
| `uploaded` | `ready` | `accept` |
| `uploaded` | `rejected`, `error` | `refuse` |
| `ready` | `ready`, with other bytes | `switch` |
| `ready_to_upload` | `deleted` | `abandon` |
| any but `deleted` | `deleted` | `delete` |

The INSERTs and the one UPDATE, in `_move`, are here and not in `repository`, so that no caller can write a transition without
its event. `repository` writes only `updated_at`, `intake_attempts` and thumbnails, which no event tells of.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, func, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.upload import repository
from services.upload.repository import ALIVE, IMPORTING
from shared.accounts import names
from shared.blobs import rows as blob_rows
from shared.blobs.store import Stored
from shared.database.sessions import Database
from shared.database.tables import Asset, Context
from shared.messaging import events, outbox
from shared.telemetry import get_logger

log = get_logger(__name__)

OPEN = Asset.status == "ready_to_upload"
UNDECIDED = Asset.status == "uploaded"
READY = Asset.status == "ready"


@dataclass(frozen=True)
class Accepted:
    """A clean copy in the store, and what intake read from it for the asset's `data`."""

    key: str
    stored: Stored
    data: dict[str, Any]
    original: tuple[str, Stored] | None = None
    """The file as it was sent, where the clean copy has other bytes."""
    notice: str = ""
    """What its owner should know about the copy."""


def identity(asset: Asset) -> dict[str, Any]:
    """Return the fields that every event about an asset has."""
    return {"asset_id": asset.id, "account_id": str(asset.account_id), "version": asset.version}


def uploaded(asset: Asset) -> events.AssetUploaded:
    """Return the event that an asset's bytes are in staging."""
    return events.AssetUploaded(**identity(asset))


def ready(asset: Asset) -> events.AssetReady:
    """Return the event that an asset can be used."""
    return events.AssetReady(**identity(asset), asset_type=asset.asset_type, name=asset.name, tune_id=asset.tune_id)


async def create(session: AsyncSession, asset: Asset) -> None:
    """Insert an asset that waits for its bytes. Its name must be reserved."""
    await _insert(session, asset)
    created = events.AssetCreated(**identity(asset), asset_type=asset.asset_type, name=asset.name)
    await outbox.publish(session, Context.UPLOAD, created)


async def create_ready(session: AsyncSession, asset: Asset) -> None:
    """Insert an asset whose bytes are in the store already. Its name must be reserved."""
    await _insert(session, asset)
    await outbox.publish(session, Context.UPLOAD, ready(asset))


async def create_lora_of_tune(session: AsyncSession, values: dict[str, Any]) -> Asset | None:
    """Insert the LoRA of a tune; None when the tune has or had a LoRA already, or when its name is taken."""
    # No conflict target: of two inserts at the same time, the second may violate either unique index.
    asset = await session.scalar(insert(Asset).values(values).on_conflict_do_nothing().returning(Asset))
    if asset is not None:
        await outbox.publish(session, Context.UPLOAD, ready(asset))
    return asset


async def complete(session: AsyncSession, asset_id: str, size_bytes: int) -> Asset | None:
    """Note that the bytes of an upload are in staging; None when the asset no longer waits for them."""
    values = {"status": "uploaded", "size_bytes": size_bytes, "reserved_bytes": 0, "uploaded_at": func.now()}
    return await _move(session, asset_id, OPEN, values, uploaded)


async def complete_import(session: AsyncSession, asset_id: str, size_bytes: int) -> Asset | None:
    """Note that the bytes of an import are in staging; None when the asset no longer waits for them."""
    values = {"size_bytes": size_bytes, "reserved_bytes": 0, "uploaded_at": func.now()}
    return await _move(session, asset_id, IMPORTING, values, uploaded)


async def accept(database: Database, asset: Asset, accepted: Accepted) -> None:
    """Move an uploaded asset to `ready` with its copies. If it has its verdict already, orphan the copies instead."""
    copies = {accepted.key: accepted.stored} | dict([accepted.original] if accepted.original else [])
    original_key, original = accepted.original or (None, None)
    values = {
        "status": "ready",
        "status_details": accepted.notice,
        "data": asset.data | accepted.data,
        "size_bytes": (original or accepted.stored).size_bytes,
        "copy_bytes": accepted.stored.size_bytes if original else 0,
        "sha256": accepted.stored.sha256,
        "blob_key": accepted.key,
        "original_key": original_key,
    }
    async with database.begin() as session:
        for key, stored in copies.items():
            await blob_rows.commit(session, key, stored)
        moved = await _move(session, asset.id, UNDECIDED, values, ready)
        if moved is None:
            await blob_rows.orphan(session, *copies)
            return
        await blob_rows.orphan(session, asset.staging_key or "")
    log.info("asset.ready", asset_id=asset.id, asset_type=asset.asset_type)


async def refuse(database: Database, asset: Asset, status: Literal["rejected", "error"], reason: str) -> None:
    """Move an uploaded asset to `rejected` or `error` with the reason, unless it has its verdict already."""
    values = {"status": status, "status_details": reason, "reserved_bytes": 0}
    async with database.begin() as session:
        moved = await _move(
            session, asset.id, UNDECIDED, values, lambda moved: events.AssetRejected(**identity(moved), reason=reason)
        )
        if moved is None:
            return
        await blob_rows.orphan(session, asset.staging_key or "")
    log.info("asset.rejected", asset_id=asset.id, asset_type=asset.asset_type, status=status, reason=reason)


async def switch(session: AsyncSession, asset: Asset, values: dict[str, Any]) -> Asset | None:
    """Give a ready asset other bytes, and orphan the old ones unless another asset has them; None when it is not ready."""
    old_key = asset.blob_key
    switched = await _move(session, asset.id, READY, values, ready)
    if switched is not None and old_key:
        await _give_up(session, asset.id, old_key)
    return switched


async def abandon(session: AsyncSession, asset_id: str) -> Asset | None:
    """Delete an asset whose upload was never completed; None when it no longer waits for its bytes."""
    return await _delete(session, asset_id, OPEN, {"status_details": "the upload was not completed in time"})


async def delete(session: AsyncSession, asset_id: str) -> Asset | None:
    """Delete an asset; None when it was deleted already."""
    return await _delete(session, asset_id, ALIVE, {})


async def _delete(session: AsyncSession, asset_id: str, where: ColumnElement[bool], values: dict[str, Any]) -> Asset | None:
    values = {"status": "deleted", "deleted_at": func.now()} | values
    deleted = await _move(session, asset_id, where, values, lambda asset: events.AssetDeleted(**identity(asset)))
    if deleted is not None:
        await names.release(session, "asset", asset_id)
        # No other asset has these.
        if own := [key for key in (deleted.staging_key, deleted.original_key, deleted.thumbnail_key) if key]:
            await blob_rows.orphan(session, *own)
        if deleted.blob_key:
            await _give_up(session, asset_id, deleted.blob_key)
    return deleted


async def _give_up(session: AsyncSession, asset_id: str, blob_key: str) -> None:
    if not await repository.other_holds_blob(session, asset_id, blob_key):
        await blob_rows.orphan(session, blob_key)


async def _insert(session: AsyncSession, asset: Asset) -> None:
    session.add(asset)
    await session.flush()
    # The database sets created_at.
    await session.refresh(asset)


async def _move(
    session: AsyncSession,
    asset_id: str,
    where: ColumnElement[bool],
    values: dict[str, Any],
    event: Callable[[Asset], events.AssetEventBase],
) -> Asset | None:
    """Change the asset if `where` holds, and publish its event. Returns None if it does not hold: another writer was first.

    The UPDATE decides, and locks the row. The event is written to the outbox after it, so that the outbox has the events of
    one asset in the order of its commits.
    """
    changed = (
        update(Asset)
        .where(Asset.id == asset_id, where)
        .values(version=Asset.version + 1, updated_at=func.now(), **values)
        .returning(Asset)
        .execution_options(populate_existing=True)
    )
    moved = await session.scalar(changed)
    if moved is not None:
        await outbox.publish(session, Context.UPLOAD, event(moved))
    return moved
