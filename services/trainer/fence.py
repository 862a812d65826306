"""Writes under a lease: tried again while the database is away, refused for ever once the lease is gone."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.sessions import Database
from shared.telemetry import get_logger

log = get_logger(__name__)

T = TypeVar("T")
Write = Callable[[AsyncSession], Awaitable[T]]

_RETRY_S = 0.5
_MAX_RETRY_S = 5.0


def is_unavailable(error: BaseException) -> bool:
    """Say whether an error means that the database does not answer now, rather than that it refused."""
    if isinstance(error, IntegrityError | ProgrammingError):
        return False
    return isinstance(error, DBAPIError | OSError | TimeoutError) or type(error).__module__.startswith("asyncpg")


async def patiently(database: Database, write: Write[T]) -> T:
    """Run a write in a transaction of its own, again and again while the database is away.

    A COMMIT that was cut off may have happened: the write must then refuse or repeat itself harmlessly, as fenced ones do.
    """
    pause_s = _RETRY_S
    while True:
        try:
            async with database.begin() as session:
                return await write(session)
        except Exception as error:
            if not is_unavailable(error):
                raise
            log.warning("trainer.database_away", error=repr(error), retry_in_s=pause_s)
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 2, _MAX_RETRY_S)
