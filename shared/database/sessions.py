"""The database: one transaction a request or message.

A service with an API has two pools, one for requests and one for its background work, so that neither waits for the other.
Every wait has a bound, because a server may accept a connection and never answer.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from ssl import SSLContext
from typing import Any
from uuid import UUID
from weakref import WeakSet, ref

import asyncpg
from prometheus_client import Gauge
from sqlalchemy import event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection, QueuePool
from sqlalchemy.util import await_only

from shared import tls as contexts
from shared.database import privacy
from shared.settings import ApiSettings, ServiceSettings
from shared.shares import Shares, Turns, current_account

_CONNECT_S = 5.0
_COMMAND_S = 30.0
_PING_S = 3.0
_CLOSE_S = 2.0
_WAIT_S = 10.0
_LOCK_S = 3.0
"""How long a statement of a request waits for a row that another transaction has locked. Background work may wait longer."""
_USED = "tunesmith_used"
_IN_USE = Gauge("tunesmith_database_connections_in_use", "Connections that transactions of this process use.", ["pool"])
_SIZE = Gauge("tunesmith_database_connections_limit", "Connections that transactions of this process may use.", ["pool"])


def tls_of(settings: ServiceSettings) -> SSLContext | None:
    """Return the TLS that the settings ask for; None: what the URL says."""
    if settings.database_tls == "verify-full":
        return contexts.verified(settings.database_ca_file)
    return contexts.unverified() if settings.database_tls == "require" else None


def tls_arguments(tls: SSLContext | None) -> dict[str, Any]:
    """Return asyncpg's arguments for this TLS. Without an argument it takes `sslmode` of the URL, and `prefer` by default."""
    return {} if tls is None else {"ssl": tls}


class Database:
    """Opens transactions on PostgreSQL.

    Only `begin` commits. Routes, consumed messages and background tasks call it; a function of a service or a repository takes
    the session and leaves the commit to them.

    The requests of one account share the pool fairly with those of the others, whatever they do: `shared/shares.py` says how.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        kept: int | None = None,
        application_name: str = "tunesmith",
        wait_s: float = _WAIT_S,
        lock_s: float | None = None,
        tls: SSLContext | None = None,
    ) -> None:
        """Make a pool of at most `pool_size` connections. More than `kept` are closed when they are not used; None keeps all."""
        limits = {"idle_in_transaction_session_timeout": "30000"}
        if lock_s is not None:
            limits["lock_timeout"] = str(round(lock_s * 1000))
        kept = pool_size if kept is None else min(kept, pool_size)
        self.engine = create_async_engine(
            url,
            pool_size=kept,
            max_overflow=pool_size - kept,
            pool_timeout=wait_s,
            hide_parameters=True,
            connect_args={
                "timeout": _CONNECT_S,
                "command_timeout": _COMMAND_S,
                "server_settings": {"application_name": application_name} | limits,
                **tls_arguments(tls),
            },
        )
        self._wait_s = wait_s
        self._shares, self._turns = Shares(pool_size), Turns()
        self._opened: WeakSet[asyncpg.Connection] = WeakSet()
        event.listen(self.engine.sync_engine, "connect", lambda connection, _record: self._opened.add(_driver(connection)))
        event.listen(self.engine.sync_engine, "checkout", _ping)
        event.listen(self.engine.sync_engine, "handle_error", _discard_silent_connection)
        event.listen(self.engine.sync_engine, "handle_error", privacy.hide_values)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        _measure(self.engine, application_name, pool_size)

    @classmethod
    def from_settings(
        cls, settings: ServiceSettings, *, application_name: str, share: float = 1.0, kept: int | None = None
    ) -> "Database":
        """Build the database of a process's background work from its settings.

        A kind of process that runs in hundreds takes a `share` of the pool size, and keeps few connections while it is idle.
        """
        return cls(
            settings.database_url.get_secret_value(),
            pool_size=max(2, round(settings.database_pool_size * share)),
            kept=kept,
            application_name=application_name,
            tls=tls_of(settings),
        )

    @classmethod
    def for_requests(cls, settings: ApiSettings, *, application_name: str) -> "Database":
        """Build the database of a service's API from its settings."""
        return cls(
            settings.database_url.get_secret_value(),
            pool_size=settings.database_api_pool_size,
            application_name=f"{application_name}-api",
            wait_s=settings.database_wait_s,
            lock_s=_LOCK_S,
            tls=tls_of(settings),
        )

    @asynccontextmanager
    async def begin(self, *, turn_of: UUID | None = None) -> AsyncGenerator[AsyncSession]:
        """Open a transaction (READ COMMITTED), which commits when the block ends and rolls back when the block raises.

        With `turn_of`, no other transaction with the turn of this account runs in this process: those that lock the account
        would only occupy connections while they wait for each other. Raises LimitError when the requests of the account do not
        get a turn or a connection in time.
        """
        async with AsyncExitStack() as stack:
            if turn_of is not None:
                msg = f"the account's other requests of this kind took {self._wait_s:g} s; send fewer at a time, and retry in 1 s"
                await stack.enter_async_context(self._turns.turn(turn_of, wait_s=self._wait_s, message=msg))
            account_id = current_account.get()
            if account_id is not None:
                msg = f"the account's other requests took {self._wait_s:g} s; send fewer at a time, and retry in 1 s"
                await stack.enter_async_context(self._shares.slot(account_id, wait_s=self._wait_s, message=msg))
            session = await stack.enter_async_context(self._sessions())
            await stack.enter_async_context(session.begin())
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


def _measure(engine: AsyncEngine, pool: str, size: int) -> None:
    """Publish how much of a pool is in use, for as long as the engine is referred to elsewhere."""
    reference = ref(engine.sync_engine)

    def in_use() -> float:
        found = reference()
        return found.pool.checkedout() if found and isinstance(found.pool, QueuePool) else 0

    _IN_USE.labels(pool).set_function(in_use)
    _SIZE.labels(pool).set(size)


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
