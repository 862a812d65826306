"""Deletes objects that nothing needs from the store, and compares the store with the rows. Each context collects its own."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select, update

from shared.blobs import rows as blob_rows
from shared.blobs.references import referenced
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Blob, Context
from shared.telemetry import get_logger

log = get_logger(__name__)

_BATCH = 200


@dataclass(frozen=True)
class Swept:
    """What a sweep found: the keys of objects without a row, which it deleted, and of committed rows without an object."""

    strays: list[str]
    missing: list[str]


class BlobCollector:
    """Collects the blobs of one context, whose keys have its prefixes.

    `grace_s` is how long an orphan is kept: at least as long as a link to it is valid. `staging_s` is how long a writer may take
    from staging a row to committing it.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        owner: Context,
        *,
        prefixes: tuple[str, ...],
        grace_s: float,
        staging_s: float,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._owner = owner
        self._prefixes = prefixes
        self._grace_s = grace_s
        self._staging_s = staging_s

    async def collect(self) -> list[str]:
        """Orphan rows that stayed staged for too long, delete a batch of orphans past their grace, and return their keys."""
        await self._give_up_staged()
        async with self._database.begin() as session:
            due = (
                select(Blob.key)
                .where(Blob.owner == self._owner, Blob.state == "orphaned", Blob.orphaned_at < _ago(self._grace_s))
                .order_by(Blob.orphaned_at)
                .limit(_BATCH)
                .with_for_update(skip_locked=True)
            )
            keys = set(await session.scalars(due))
            # A new statement has a new snapshot: it sees the reference of a transaction that pinned one of these and committed
            # while the statement above waited.
            used = await referenced(session, keys)
            # Those still in use are due later again, or a full batch of them would hide all others.
            await session.execute(update(Blob).where(Blob.key.in_(used)).values(orphaned_at=func.now()))
            unused = sorted(keys - used)
            await session.execute(update(Blob).where(Blob.key.in_(unused)).values(state="deleted", deleted_at=func.now()))
        # After the commit: if the process dies here, objects without a live row are left, and the sweep finds them. Before it, a
        # rollback would leave rows without objects, which cannot be repaired.
        for key in unused:
            await self._blobs.delete(key)
        if unused:
            log.info("blobs.collected", owner=self._owner, objects=len(unused))
        return unused

    async def sweep(self) -> Swept:
        """Delete objects without a live row, and report committed rows without an object.

        Objects that are younger than the grace period are left alone.
        """
        swept = Swept([], [])
        for prefix in self._prefixes:
            async with self._database.begin() as session:
                below = Blob.key.startswith(prefix, autoescape=True)
                committed = set(
                    await session.scalars(select(Blob.key).where(Blob.owner == self._owner, Blob.state == "committed", below))
                )
            listed = await self._blobs.list(prefix)
            # Read the rows after the listing: a writer commits the row before it puts the object.
            old = [item.key for item in listed if item.age_s > self._grace_s]
            for start in range(0, len(old), _BATCH):
                swept.strays.extend(await self._delete_strays(set(old[start : start + _BATCH])))
            for key in sorted(committed - {item.key for item in listed}):
                if await self._is_missing(key):
                    log.error("blob.missing", key=key)
                    swept.missing.append(key)
        if swept.strays:
            log.info("blobs.swept", owner=self._owner, objects=len(swept.strays))
        return swept

    async def _give_up_staged(self) -> None:
        async with self._database.begin() as session:
            late = (
                select(Blob.key)
                .where(Blob.owner == self._owner, Blob.state == "staging", Blob.created_at < _ago(self._staging_s))
                .limit(_BATCH)
                .with_for_update(skip_locked=True)
            )
            keys = set(await session.scalars(late))
            if keys:
                await blob_rows.orphan(session, *(keys - await referenced(session, keys)))

    async def _delete_strays(self, keys: set[str]) -> list[str]:
        async with self._database.begin() as session:
            known = await session.scalars(select(Blob.key).where(Blob.key.in_(keys), Blob.state != "deleted"))
            strays = sorted(keys - set(known))
        for key in strays:
            await self._blobs.delete(key)
        return strays

    async def _is_missing(self, key: str) -> bool:
        if await self._blobs.size(key) is not None:
            return False
        async with self._database.begin() as session:
            return await session.scalar(select(Blob.state).where(Blob.key == key)) == "committed"


def _ago(seconds: float) -> ColumnElement[datetime]:
    return func.now() - timedelta(seconds=seconds)
