"""Notifications arrive as long as a connection can be made, and whoever listens is told when some may be missing."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import text

from shared.background import Background
from shared.database.listen import Listener
from shared.database.sessions import Database
from shared.settings import ServiceSettings

WAIT_S = 20


class Heard:
    """What a listener has heard, in order."""

    def __init__(self) -> None:
        self._payloads: asyncio.Queue[str | None] = asyncio.Queue()

    def __call__(self, payload: str | None) -> None:
        self._payloads.put_nowait(payload)

    async def next(self) -> str | None:
        return await asyncio.wait_for(self._payloads.get(), WAIT_S)

    @property
    def is_empty(self) -> bool:
        return self._payloads.empty()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.close()


@pytest.fixture
async def heard() -> Heard:
    return Heard()


@pytest.fixture
async def listener(make_settings: Callable[..., ServiceSettings], heard: Heard) -> AsyncIterator[Listener]:
    listener = Listener(make_settings(), "news", heard)
    async with Background() as background:
        background.run("listener", listener.run)
        yield listener


async def _notify(database: Database, channel: str, payload: str) -> None:
    async with database.begin() as session:
        await session.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": channel, "payload": payload})


async def test_a_notification_is_heard_when_its_transaction_commits(database: Database, listener: Listener, heard: Heard) -> None:
    assert await heard.next() is None, "connected"
    assert listener.listening.is_set()
    async with database.begin() as session:
        await session.execute(text("NOTIFY news, 'rolled back'"))
        await session.rollback()
    await _notify(database, "other", "of another channel")
    await _notify(database, "news", "first")
    await _notify(database, "news", "second")

    assert [await heard.next(), await heard.next()] == ["first", "second"]
    assert heard.is_empty


async def test_a_listener_connects_again_and_says_that_notifications_may_be_missing(
    database: Database, listener: Listener, heard: Heard
) -> None:
    assert await heard.next() is None
    async with database.begin() as session:
        query = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
        lost = await session.scalar(text(query))
    assert lost

    assert await heard.next() is None
    await _notify(database, "news", "after")
    assert await heard.next() == "after"


async def test_a_listener_that_has_ended_keeps_no_connection(
    database: Database, make_settings: Callable[..., ServiceSettings], heard: Heard
) -> None:
    async with Background() as background:
        background.run("listener", Listener(make_settings(), "news", heard).run)
        assert await heard.next() is None

    async with asyncio.timeout(WAIT_S), database.begin() as session:
        while await session.scalar(text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")) > 1:
            await session.execute(text("SELECT pg_stat_clear_snapshot()"))
