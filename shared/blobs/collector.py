"""Deletes objects that nothing needs from the store, and compares the store with the rows. Each context collects its own."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select, text, true, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.blobs import rows as blob_rows
from shared.blobs.references import referenced
from shared.blobs.store import Blobs
from shared.database.exclusive import alone
from shared.database.rounds import in_batch, pass_over
from shared.database.sessions import Database
from shared.database.tables import Blob, Context
from shared.telemetry import get_logger

log = get_logger(__name__)

_BATCH = 200
_MOST = 10_000
"""Objects that one call deletes and returns at most."""
_BY_BYTES = text("blobs.key USING ~<~")


@dataclass(frozen=True)
class Swept:
    """What a sweep found: the keys of objects without a row, which it deleted, and of committed rows without an object.

    The first 10,000 of each.
    """

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
        """Orphan rows that stayed staged for too long, delete orphans past their grace, and return the keys of what was deleted.

        One process at a time collects. A row stays until its object is gone: when the store is unavailable, or refuses a key, a
        later call deletes the object. Raises UnavailableError while the store is unavailable.
        """
        async with alone(self._database, f"collect {self._owner}") as mine:
            if not mine:
                return []
            await self._for_pages("staging", Blob.created_at < _ago(self._staging_s), self._give_up_staged)
            await self._for_pages("orphaned", Blob.orphaned_at < _ago(self._grace_s), self._condemn)
            return await self._for_pages("deleting", true(), self._delete_condemned)

    async def sweep(self) -> Swept:
        """Delete objects without a live row, and report committed rows without an object.

        Objects that are younger than the grace period are left alone. One process at a time sweeps; it holds one page of the
        bucket in memory.
        """
        swept = Swept([], [])
        async with alone(self._database, f"sweep {self._owner}") as mine:
            for prefix in self._prefixes if mine else ():
                await self._sweep(prefix, swept)
        if swept.strays:
            log.info("blobs.swept", owner=self._owner, objects=len(swept.strays))
        return swept

    async def _for_pages(
        self, state: str, due: ColumnElement[bool], handle: Callable[[Sequence[str]], Awaitable[list[str]]]
    ) -> list[str]:
        """Call `handle` with page after page of the keys in a state; return what it returned, a bounded number of keys."""
        done: list[str] = []
        after = ""
        while len(done) < _MOST:
            page = select(Blob.key).where(Blob.owner == self._owner, Blob.state == state, due, Blob.key > after)
            async with self._database.begin() as session:
                keys = (await session.scalars(page.order_by(Blob.key).limit(_BATCH))).all()
            done += await handle(keys)
            if len(keys) < _BATCH:
                break
            after = keys[-1]
        return done

    async def _give_up_staged(self, keys: Sequence[str]) -> list[str]:
        async def give_up(session: AsyncSession, keys: Sequence[str]) -> list[str]:
            late = await _lock(session, keys, "staging", Blob.created_at < _ago(self._staging_s))
            if unused := late - await referenced(session, late):
                await blob_rows.orphan(session, *unused)
            return sorted(unused)

        return await in_batch(self._database, "collector", keys, give_up)

    async def _condemn(self, keys: Sequence[str]) -> list[str]:
        """Decide that the objects of unused orphans are deleted. From then on, no row can refer to them."""

        async def condemn(session: AsyncSession, keys: Sequence[str]) -> list[str]:
            due = await _lock(session, keys, "orphaned", Blob.orphaned_at < _ago(self._grace_s))
            # A new statement has a new snapshot: it sees the reference of a transaction that pinned one of these and committed
            # while the statement above waited.
            used = await referenced(session, due)
            # Those still in use are looked at again after another grace period.
            await session.execute(update(Blob).where(Blob.key.in_(used)).values(orphaned_at=func.now()))
            await session.execute(update(Blob).where(Blob.key.in_(due - used)).values(state="deleting"))
            return sorted(due - used)

        return await in_batch(self._database, "collector", keys, condemn)

    async def _delete_condemned(self, keys: Sequence[str]) -> list[str]:
        async def delete(session: AsyncSession, keys: Sequence[str]) -> Sequence[str]:
            values = {"state": "deleted", "deleted_at": func.now()}
            gone = update(Blob).where(Blob.key.in_(keys), Blob.state == "deleting").values(values).returning(Blob.key)
            return sorted(await session.scalars(gone))

        gone = await in_batch(self._database, "collector", await self._delete_objects(keys), delete)
        if gone:
            log.info("blobs.collected", owner=self._owner, objects=len(gone))
        return gone

    async def _delete_objects(self, keys: Sequence[str]) -> list[str]:
        """Delete objects, and return the keys of those that are gone."""
        gone: list[str] = []
        for key in keys:
            try:
                await self._blobs.delete(key)
            except Exception as error:  # noqa: BLE001 - one object must not stop the others
                await self._blobs.ping()
                await pass_over(self._database, "collector.store", key, error)
            else:
                gone.append(key)
        return gone

    async def _sweep(self, prefix: str, swept: Swept) -> None:
        after = ""
        async for page in self._blobs.pages(prefix, _BATCH):
            # Read the rows after the listing: a writer commits the row before it puts the object.
            strays = await self._strays({item.key for item in page if item.age_s > self._grace_s})
            swept.strays.extend((await self._delete_objects(strays))[: _MOST - len(swept.strays)])
            is_last = len(page) < _BATCH
            until = None if is_last else max(after, page[-1].key)
            await self._report_missing(prefix, after, until, {item.key for item in page}, swept)
            after = until or after

    async def _strays(self, keys: set[str]) -> list[str]:
        async with self._database.begin() as session:
            known = await session.scalars(select(Blob.key).where(Blob.key.in_(keys), Blob.state != "deleted"))
            return sorted(keys - set(known))

    async def _report_missing(self, prefix: str, after: str, until: str | None, listed: set[str], swept: Swept) -> None:
        """Report committed rows without an object whose keys are between two keys of the listing."""
        # The store lists keys in the order of their bytes. In PostgreSQL `~>~` and its likes compare so, whatever the collation.
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        while True:
            rows = select(Blob.key).where(Blob.owner == self._owner, Blob.state == "committed")
            rows = rows.where(Blob.key.op("~>~", is_comparison=True)(max(after, prefix)))
            rows = rows.where(Blob.key.op("~<~", is_comparison=True)(end))
            rows = rows.where(Blob.key.op("~<=~", is_comparison=True)(until)) if until is not None else rows
            async with self._database.begin() as session:
                keys = (await session.scalars(rows.order_by(_BY_BYTES).limit(_BATCH))).all()
            for missing in keys:
                if missing not in listed and await self._is_missing(missing):
                    log.error("blob.missing", key=missing)
                    if len(swept.missing) < _MOST:
                        swept.missing.append(missing)
            if len(keys) < _BATCH:
                return
            after = keys[-1]

    async def _is_missing(self, key: str) -> bool:
        # It may have been written since the page was listed.
        if await self._blobs.size(key) is not None:
            return False
        async with self._database.begin() as session:
            return await session.scalar(select(Blob.state).where(Blob.key == key)) == "committed"


async def _lock(session: AsyncSession, keys: Sequence[str], state: str, due: ColumnElement[bool]) -> set[str]:
    """Lock those of the rows that are still due, and return their keys."""
    wanted = select(Blob.key).where(Blob.key.in_(keys), Blob.state == state, due)
    return set(await session.scalars(wanted.with_for_update(skip_locked=True)))


def _ago(seconds: float) -> ColumnElement[datetime]:
    return func.now() - timedelta(seconds=seconds)
