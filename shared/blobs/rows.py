"""Rows of `blobs`: what is known of each object in the store, from before it is written until after it is deleted.

A row goes staging -> committed -> orphaned -> deleted. Its writer stages the row and commits that transaction, puts the
object, and commits the row in the transaction that makes something point to it: so every object has a row, and every
committed row has its object. `shared/blobs/collector.py` does the rest of the way.
"""

from collections.abc import Collection

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.blobs.store import Stored
from shared.database.tables import Blob, Context
from shared.errors import ConflictError


async def stage(session: AsyncSession, owner: Context, key: str, *, content_type: str = "application/octet-stream") -> None:
    """Announce an object that is about to be written; staging the same key again starts its clock anew.

    Commit before the object is put. Raises ConflictError when the key was ever committed or deleted: its object may be
    in use, or be deleted at any moment, so a new version of something takes a key of its own.
    """
    new = insert(Blob).values(key=key, owner=owner, state="staging", content_type=content_type)
    again = new.on_conflict_do_update(
        index_elements=["key"],
        set_={"state": "staging", "created_at": func.now(), "orphaned_at": None, "content_type": content_type},
        # An orphan that was committed once has a sha256, and something may still be reading it.
        where=(Blob.owner == owner) & Blob.state.in_(["staging", "orphaned"]) & Blob.sha256.is_(None),
    )
    if (await session.execute(again.returning(Blob.key))).scalar_one_or_none() is None:
        msg = f"the blob key {key} has been used; write under a new one"
        raise ConflictError(msg)


async def commit(session: AsyncSession, key: str, stored: Stored) -> None:
    """Record that the object is in the store, whole. Doing so again with the same bytes is fine.

    Raises ConflictError when the row was deleted meanwhile, was never staged, or holds other bytes.
    """
    done = (
        update(Blob)
        .where(Blob.key == key, Blob.state.in_(["staging", "orphaned", "committed"]))
        .where(Blob.sha256.is_(None) | (Blob.sha256 == stored.sha256))
        .values(state="committed", sha256=stored.sha256, size_bytes=stored.size_bytes, orphaned_at=None)
        .returning(Blob.key)
    )
    if (await session.execute(done)).scalar_one_or_none() is None:
        msg = f"the blob {key} was not staged, holds other bytes, or has been collected; write it again under a new key"
        raise ConflictError(msg)


async def orphan(session: AsyncSession, *keys: str) -> None:
    """Give blobs up: the collector deletes their objects once a grace period has passed and nothing refers to them."""
    await session.execute(
        update(Blob)
        .where(Blob.key.in_(keys), Blob.state.in_(["staging", "committed"]))
        .values(state="orphaned", orphaned_at=func.now())
    )


async def pin(session: AsyncSession, keys: Collection[str]) -> dict[str, Blob]:
    """Hold these committed blobs until the transaction ends, in which the caller writes its reference to each.

    Raises ConflictError naming one that is gone. FOR SHARE makes who orphans or collects the blob wait for us, and then
    see our reference; without it an uncommitted reference would be missed.
    """
    # In one order, or two transactions that pin the same blobs could deadlock with who takes them for update.
    wanted = select(Blob).where(Blob.key.in_(keys), Blob.state == "committed").order_by(Blob.key).with_for_update(read=True)
    found = {blob.key: blob for blob in await session.scalars(wanted)}
    if gone := sorted(set(keys) - found.keys()):
        msg = f"the blob {gone[0]} is gone: what it belonged to was deleted a moment ago"
        raise ConflictError(msg)
    return found
