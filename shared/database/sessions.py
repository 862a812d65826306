"""The database: one engine a process, and one transaction a request or message.

Every wait has a bound, because a server may accept a connection and never answer.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from weakref import WeakSet

import asyncpg
from sqlalchemy import event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.util import await_only

from shared.database import privacy
from shared.settings import ServiceSettings

_CONNECT_S = 5.0
_COMMAND_S = 30.0
_PING_S = 3.0
_CLOSE_S = 2.0
_USED = "tunesmith_used"


class Database:
    """Opens transactions on PostgreSQL.

    Only `begin` commits. Routes, consumed messages and background tasks call it; a function of a service or a repository takes
    the session and leaves the commit to them.
    """

    def __init__(self, url: str, *, pool_size: int = 10, kept: int | None = None, application_name: str = "tunesmith") -> None:
        """Make a pool of at most `pool_size` connections. More than `kept` are closed when they are not used; None keeps all."""
        kept = pool_size if kept is None else min(kept, pool_size)
        self.engine = create_async_engine(
            url,
            pool_size=kept,
            max_overflow=pool_size - kept,
            hide_parameters=True,
            connect_args={
                "timeout": _CONNECT_S,
                "command_timeout": _COMMAND_S,
                "server_settings": {"application_name": application_name, "idle_in_transaction_session_timeout": "30000"},
            },
        )
        self._opened: WeakSet[asyncpg.Connection] = WeakSet()
        event.listen(self.engine.sync_engine, "connect", lambda connection, _record: self._opened.add(_driver(connection)))
        event.listen(self.engine.sync_engine, "checkout", _ping)
        event.listen(self.engine.sync_engine, "handle_error", _discard_silent_connection)
        event.listen(self.engine.sync_engine, "handle_error", privacy.hide_values)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    @classmethod
    def from_settings(
        cls, settings: ServiceSettings, *, application_name: str, share: float = 1.0, kept: int | None = None
    ) -> "Database":
        """Build the process's database from its settings.

        A kind of process that runs in hundreds takes a `share` of the pool size, and keeps few connections while it is idle.
        """
        return cls(
            settings.database_url.get_secret_value(),
            pool_size=max(2, round(settings.database_pool_size * share)),
            kept=kept,
            application_name=application_name,
        )

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncSession]:
        """Open a transaction (READ COMMITTED), which commits when the block ends and rolls back when the block raises."""
        async with self._sessions() as session, session.begin():
            yield session

    async def ping(self) -> None:
        """Raise unless the database answers."""
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close every connection, without waiting for a server that does not answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self.engine.dispose()
        for connection in self._opened:
            connection.terminate()


def _ping(connection: DBAPIConnection, record: ConnectionPoolEntry, _proxy: PoolProxiedConnection) -> None:
    """Replace a pooled connection that broke, or whose server does not answer, before a transaction uses it.

    SQLAlchemy's own `pool_pre_ping` needs three round trips, and waits as long as a statement may for each connection in turn.
    """
    if _USED not in record.info:
        record.info[_USED] = True
        return
    driver = _driver(connection)
    try:
        await_only(driver.execute("SELECT 1", timeout=_PING_S))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        # The last of these for a connection that its server is just ending: asyncpg still expects an answer on it.
        # `close` would wait for an answer too.
        driver.terminate()
        # The pool replaces this connection and all that are as old, because they have the same server.
        raise InvalidatePoolError from error


def _driver(connection: DBAPIConnection) -> "asyncpg.Connection":
    return connection.driver_connection  # pyright: ignore[reportAttributeAccessIssue] - of SQLAlchemy's adapter for asyncpg


def _discard_silent_connection(context: ExceptionContext) -> None:
    """Discard a connection whose statement was not answered in time: a ROLLBACK on it would wait twice as long again."""
    if isinstance(context.original_exception, TimeoutError):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False
