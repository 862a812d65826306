"""Rows of `blobs`: one for each object in the store, from before it is written until after it is deleted.

A row goes staging -> committed -> orphaned -> deleting -> deleted. Its writer stages the row in a transaction of its own, puts
the object, and commits the row in the transaction that writes a reference to it. So every object has a row, and every committed
row has its object. `shared/blobs/collector.py` deletes the orphans; a row is `deleting` until its object is gone.
"""

from collections.abc import Collection

from sqlalchemy import and_, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.blobs.store import Stored
from shared.database.retention import Expired, older_than, table_of
from shared.database.tables import Asset, Blob, Checkpoint, Context, Sample, Tune, TuneFile
from shared.errors import ConflictError


async def stage(session: AsyncSession, owner: Context, key: str, *, content_type: str = "application/octet-stream") -> None:
    """Stage the row of an object that will be written next; staging the same key again restarts its time limit.

    Commit the transaction before you put the object. Raises ConflictError for a key that was committed or deleted before: its
    object may be in use, or be deleted at any moment, so each object needs a new key.
    """
    new = insert(Blob).values(key=key, owner=owner, state="staging", content_type=content_type)
    again = new.on_conflict_do_update(
        index_elements=["key"],
        set_={"state": "staging", "created_at": func.now(), "orphaned_at": None, "content_type": content_type},
        # An orphan with a sha256 was committed before, and something may still read it.
        where=(Blob.owner == owner) & Blob.state.in_(["staging", "orphaned"]) & Blob.sha256.is_(None),
    )
    if (await session.execute(again.returning(Blob.key))).scalar_one_or_none() is None:
        msg = f"the blob key {key} was used before; choose a new one"
        raise ConflictError(msg)


async def commit(session: AsyncSession, key: str, stored: Stored) -> None:
    """Record that the whole object is in the store; again with the same bytes has no effect.

    Raises ConflictError when the row was not staged, was deleted since, or has the sha256 of other bytes.
    """
    done = (
        update(Blob)
        .where(Blob.key == key, Blob.state.in_(["staging", "orphaned", "committed"]))
        .where(Blob.sha256.is_(None) | (Blob.sha256 == stored.sha256))
        .values(state="committed", sha256=stored.sha256, size_bytes=stored.size_bytes, orphaned_at=None)
        .returning(Blob.key)
    )
    if (await session.execute(done)).scalar_one_or_none() is None:
        msg = f"the blob {key} was not staged, has other bytes, or was deleted; write it again under a new key"
        raise ConflictError(msg)


async def orphan(session: AsyncSession, *keys: str) -> None:
    """Orphan blobs: the collector deletes their objects when a grace period has passed and nothing refers to them."""
    await session.execute(
        update(Blob)
        .where(Blob.key.in_(keys), Blob.state.in_(["staging", "committed"]))
        .values(state="orphaned", orphaned_at=func.now())
    )


async def keep(session: AsyncSession, keys: Collection[str]) -> set[str]:
    """Take orphans that are not deleted yet back, and return the keys of those that are kept now.

    The caller writes its references in the same transaction. The collector waits for it, or has deleted the object before.
    """
    # In a fixed order, as `pin`.
    there = select(Blob.key).where(Blob.key.in_(keys), Blob.state.in_(["orphaned", "committed"]), Blob.sha256.is_not(None))
    kept = set(await session.scalars(there.order_by(Blob.key).with_for_update()))
    await session.execute(update(Blob).where(Blob.key.in_(kept)).values(state="committed", orphaned_at=None))
    return kept


async def pin(session: AsyncSession, keys: Collection[str]) -> dict[str, Blob]:
    """Lock committed blobs until the transaction ends, in which the caller writes its references to them; return them by key.

    Raises ConflictError, which names one that is missing. FOR SHARE makes a transaction that orphans or collects a blob wait for
    this one, and then see its reference; without the lock, it could not see a reference that is not committed yet.
    """
    # In a fixed order, or two transactions that pin the same blobs could deadlock with one that locks them for update.
    wanted = select(Blob).where(Blob.key.in_(keys), Blob.state == "committed").order_by(Blob.key).with_for_update(read=True)
    found = {blob.key: blob for blob in await session.scalars(wanted)}
    if gone := sorted(set(keys) - found.keys()):
        msg = f"the blob {gone[0]} was deleted a moment ago, with the asset that it belonged to; use another asset"
        raise ConflictError(msg)
    return found


async def pin_existing(session: AsyncSession, keys: Collection[str]) -> set[str]:
    """Pin those of the blobs that are still committed, and return their keys."""
    wanted = select(Blob.key).where(Blob.key.in_(keys), Blob.state == "committed").order_by(Blob.key)
    return set(await session.scalars(wanted.with_for_update(read=True)))


def expired(owner: Context, kept_s: float) -> Expired:
    """Return the rows of blobs that were deleted longer ago than this, and that no row refers to."""
    references = (
        Asset.blob_key,
        Asset.original_key,
        Asset.thumbnail_key,
        Tune.base_blob_key,
        Tune.lora_key,
        TuneFile.blob_key,
        Checkpoint.blob_key,
        Sample.blob_key,
    )
    old = and_(Blob.owner == owner, Blob.state == "deleted", older_than(Blob.deleted_at, kept_s))
    return Expired(table_of(Blob), and_(old, *(~exists().where(reference == Blob.key) for reference in references)))
