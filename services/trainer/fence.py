"""Writes under a lease: repeated while the database is unavailable, refused for good once the lease is lost."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.sessions import Database
from shared.failures import retry_while_unavailable

T = TypeVar("T")


async def write_when_available(
    database: Database, write: Callable[[AsyncSession], Awaitable[T]], *, patience_s: float | None = None
) -> T:
    """Run a write in a transaction of its own, and repeat it while the database is unavailable, for `patience_s` at most.

    A COMMIT whose connection broke may have happened. The repeated write must then be refused or be harmless, as fenced
    writes are.
    """

    async def run() -> T:
        async with database.begin() as session:
            return await write(session)

    return await retry_while_unavailable(run, log_event="trainer.database_unavailable", patience_s=patience_s)
