"""Deletes rows that are kept for a time only, in batches: one statement for millions of rows would hold locks for minutes."""

import asyncio
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, delete, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from shared.database.exclusive import alone
from shared.database.rounds import pass_over, run_each
from shared.database.sessions import Database
from shared.database.tables import Base
from shared.telemetry import get_logger

log = get_logger(__name__)

_BATCH = 500
_MOST_FAILED = 1000
_PAUSE_S = 0.05
"""Between two batches, so that vacuum, replicas and other transactions keep up."""

Key = tuple[Any, ...]
"""The values of a primary key."""


@dataclass(frozen=True)
class Expired:
    """The rows of a table that are kept no longer, and the rows of other tables that go before them.

    `parts` are columns that refer to the table's primary key; their rows are deleted in the same transaction.
    """

    table: Table
    where: ColumnElement[bool]
    parts: tuple[Column[Any], ...] = ()


async def forget(database: Database, work: str, *expired: Expired) -> None:
    """Delete expired rows until none is left. One process at a time does this work; a table that fails stops no other."""
    async with alone(database, f"forget {work}") as mine:
        if mine:
            await run_each(f"forget.{work}", *(_Deletion(database, work, one).run for one in expired))


def older_than(column: ColumnElement[Any] | InstrumentedAttribute[Any], seconds: float) -> ColumnElement[bool]:
    """Return the condition that a timestamp is older than so many seconds by the database's clock."""
    return column < func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def table_of(kind: type[Base]) -> Table:
    """Return the table of a mapped class."""
    table = kind.__table__
    assert isinstance(table, Table)  # noqa: S101 - no class is mapped to anything else
    return table


class _Deletion:
    def __init__(self, database: Database, work: str, expired: Expired) -> None:
        self._database = database
        self._task = f"forget.{work}"
        self._expired = expired
        self._key = tuple_(*expired.table.primary_key.columns)
        self._failed: list[Key] = []
        """Rows that cannot be deleted, and must not hold up the others."""

    async def run(self) -> None:
        total = 0
        while len(self._failed) < _MOST_FAILED:
            async with self._database.begin() as session:
                keys = await self._next(session)
            total += await self._delete(keys)
            if len(keys) < _BATCH:
                break
            await asyncio.sleep(_PAUSE_S)
        if total:
            log.info("rows.forgotten", table=self._expired.table.name, rows=total)

    async def _next(self, session: AsyncSession) -> list[Key]:
        wanted = select(*self._expired.table.primary_key.columns).where(self._expired.where)
        wanted = wanted.where(self._key.not_in(self._failed)) if self._failed else wanted
        return [tuple(row) for row in await session.execute(wanted.limit(_BATCH))]

    async def _delete(self, keys: list[Key]) -> int:
        """Delete rows in one transaction, or, when that fails, each in one of its own; return how many were deleted."""
        if not keys:
            return 0
        table = self._expired.table
        try:
            async with self._database.begin() as session:
                # Another transaction may have changed or deleted some of them since they were read.
                locked = select(*table.primary_key.columns).where(self._key.in_(keys), self._expired.where)
                found = [tuple(row) for row in await session.execute(locked.with_for_update(skip_locked=True, of=table))]
                for part in self._expired.parts:
                    await session.execute(delete(part.table).where(part.in_([key[0] for key in found])))
                await session.execute(delete(table).where(self._key.in_(found)))
        except Exception as error:  # noqa: BLE001 - one row must not stop the others
            if len(keys) == 1:
                await pass_over(self._database, self._task, str(keys[0]), error)
                self._failed.append(keys[0])
                return 0
            await self._database.ping()
            return sum([await self._delete([key]) for key in keys])
        # Those that another transaction holds are left to the next round.
        self._failed += set(keys) - set(found)
        return len(found)
