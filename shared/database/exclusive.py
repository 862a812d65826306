"""Work that one process at a time does, of all that share a database."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy import text

from shared.database.sessions import Database

_UNLOCK_S = 5.0


@asynccontextmanager
async def alone(database: Database, work: str) -> AsyncGenerator[bool]:
    """Yield whether this process may do the work now; while it does, every other process gets False.

    The lock belongs to a connection of the pool, outside of any transaction, so that it may last for hours. It ends with the
    process. When the connection is lost, another process may begin: the work must be harmless when it is done twice.
    """
    async with database.engine.connect() as plain:
        connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
        name = {"name": f"tunesmith {work}"}
        mine = bool(await connection.scalar(text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))"), name))
        try:
            yield mine
        finally:
            if mine:
                try:
                    async with asyncio.timeout(_UNLOCK_S):
                        await connection.execute(text("SELECT pg_advisory_unlock(hashtextextended(:name, 0))"), name)
                except BaseException:
                    # The connection must not go back to the pool with its lock.
                    await connection.invalidate()
                    raise
