"""Alembic's entry point: runs the migrations in one transaction, in one process at a time."""

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from shared.database.sessions import tls_arguments
from shared.database.tables import Base

# A fixed number, the same for every process that migrates this database.
_LOCK = 0x74756E65


def _migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        context.run_migrations()


async def _run() -> None:
    given = context.config.attributes
    engine = create_async_engine(given["database_url"], poolclass=NullPool, connect_args=tls_arguments(given["tls"]))
    async with engine.connect() as connection:
        await connection.run_sync(_migrate)
        await connection.commit()
    await engine.dispose()


asyncio.run(_run())
