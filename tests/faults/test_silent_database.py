"""A database that is slow or silent is noticed in bounded time, and its silent connections are replaced."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.background import Background
from shared.database import listen, sessions
from shared.database.listen import Listener
from shared.database.sessions import Database
from shared.failures import is_unavailable
from shared.settings import ServiceSettings
from tests.support.fault_proxy import FaultProxy

POOL = 5


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(make_url(database_url).port or 5432) as proxy:
        yield proxy


@pytest.fixture
async def database(proxy: FaultProxy, database_url: str) -> AsyncIterator[Database]:
    database = Database(proxy.url(database_url), pool_size=POOL)
    yield database
    await proxy.heal()
    await database.close()


@pytest.fixture
async def direct(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.close()


async def _fill(database: Database) -> None:
    async with contextlib.AsyncExitStack() as stack:
        opened: list[AsyncConnection] = [await stack.enter_async_context(database.engine.connect()) for _ in range(POOL)]
        for connection in opened:
            await connection.execute(text("SELECT 1"))


async def _transaction(database: Database) -> None:
    async with database.begin() as session:
        await session.execute(text("SELECT 1"))


async def test_pooled_connections_that_fell_silent_are_replaced(database: Database, proxy: FaultProxy) -> None:
    await _fill(database)
    proxy.strand()

    began = time.monotonic()
    for _ in range(2 * POOL):
        await _transaction(database)

    # Each silent connection is waited for while it closes (2 s in SQLAlchemy); one ping finds them all.
    assert time.monotonic() - began < sessions._PING_S + 2 * POOL + 5


async def test_a_statement_without_an_answer_ends_with_its_timeout(
    database_url: str, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "_COMMAND_S", 2.0)
    database = Database(proxy.url(database_url), pool_size=1)
    await _transaction(database)

    began = time.monotonic()
    with pytest.raises(TimeoutError) as silent:
        async with database.begin() as session:
            await session.execute(text("SELECT 1"))
            proxy.stall()
            await session.execute(text("SELECT 2"))
    took_s = time.monotonic() - began
    await proxy.heal()
    await _transaction(database)
    await database.close()

    assert took_s < 2 + 2 + 3, "the statement's timeout and the closing of its connection"
    assert is_unavailable(silent.value)


@pytest.mark.parametrize("statement", ["SELECT 2", "COMMIT"])
async def test_a_transaction_that_is_cancelled_does_not_wait_for_a_silent_database(
    database: Database, proxy: FaultProxy, statement: str
) -> None:
    await _transaction(database)

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1), database.begin() as session:
            await session.execute(text("SELECT 1"))
            proxy.stall()
            if statement != "COMMIT":
                await session.execute(text(statement))

    assert time.monotonic() - began < 1 + 2 + 3
    await proxy.heal()
    await _transaction(database)


async def test_a_connection_that_is_accepted_in_silence_is_given_up(database: Database, proxy: FaultProxy) -> None:
    proxy.stall()

    began = time.monotonic()
    with pytest.raises(TimeoutError) as silent:
        await database.ping()

    assert time.monotonic() - began < sessions._CONNECT_S + 3
    assert is_unavailable(silent.value)


async def test_the_end_of_a_process_does_not_wait_for_a_silent_database(database: Database, proxy: FaultProxy) -> None:
    await _fill(database)
    proxy.stall()

    began = time.monotonic()
    await database.close()

    assert time.monotonic() - began < sessions._CLOSE_S + 3


async def test_a_slow_database_is_used(database: Database, proxy: FaultProxy) -> None:
    proxy.slow(0.2)

    for _ in range(3):
        await _transaction(database)


async def test_a_listener_leaves_a_silent_connection(
    direct: Database,
    proxy: FaultProxy,
    database_url: str,
    make_settings: Callable[..., ServiceSettings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listen, "_PING_EVERY_S", 0.5)
    monkeypatch.setattr(listen, "_PING_S", 1.0)
    heard: asyncio.Queue[str | None] = asyncio.Queue()
    listener = Listener(make_settings(database_url=proxy.url(database_url)), "news", heard.put_nowait)
    async with Background() as background, asyncio.timeout(20):
        background.run("listener", listener.run)
        assert await heard.get() is None, "connected"
        proxy.strand()
        assert await heard.get() is None, "connected again"
        async with direct.begin() as session:
            await session.execute(text("NOTIFY news, 'after'"))
        assert await heard.get() == "after"
