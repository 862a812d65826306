"""Replicas of one consumer group whose database and broker lie behind fault proxies."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession

from shared.background import Background
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.messaging import outbox
from shared.messaging.consumer import Consumers
from shared.messaging.events import AssetDeleted
from shared.messaging.relay import Relay
from shared.messaging.topics import ensure_topics
from shared.settings import ServiceSettings
from tests.support.consumer_groups import members
from tests.support.fault_proxy import FaultProxy

WAIT_S = 60.0


class GroupWorld:
    """Publishes events past the proxies, and records what the group's replicas handle."""

    def __init__(self, direct: Database, settings: ServiceSettings, database: FaultProxy, kafka: FaultProxy) -> None:
        self.prefix = uuid4().hex
        self.group = f"test-{self.prefix}"
        self.database, self.kafka = database, kafka
        self.handled: list[AssetDeleted] = []
        self.failures: dict[str, Exception] = {}
        """What the handler raises, by the id of the asset."""
        self.gate = asyncio.Event()
        self.gate.set()
        self._direct = direct
        self._settings = settings
        self._proxied = settings.model_copy(update={"kafka_bootstrap_servers": f"127.0.0.1:{kafka.port}"})
        self._published = 0

    @asynccontextmanager
    async def replica(self, **options: Any) -> AsyncIterator[Consumers]:
        """Run a replica with a database of its own, as a process has."""
        database = Database(self.database.url(self._settings.database_url.get_secret_value()))
        consumers = Consumers(context=Context.UPLOAD, group=self.group, database=database, settings=self._proxied, **options)

        @consumers.on(AssetDeleted, gate=self.gate.wait)
        async def handle(_session: AsyncSession, event: AssetDeleted) -> None:
            if failure := self.failures.get(event.asset_id):
                raise failure
            if event.asset_id.startswith(self.prefix):
                self.handled.append(event)

        async with Background(stop_timeout_s=30) as background:
            background.run("consumers", consumers.run)
            yield consumers
        await database.close()

    def event(self) -> AssetDeleted:
        """Return the next event that the group is to handle."""
        self._published += 1
        return AssetDeleted(asset_id=f"{self.prefix}-{self._published}", account_id="acct_1", version=1)

    async def publish(self, count: int) -> None:
        """Write events of as many keys into the outbox, which the relay carries to the broker by itself."""
        async with self._direct.begin() as session:
            await outbox.publish(session, Context.UPLOAD, *(self.event() for _ in range(count)))

    async def all_handled(self, within_s: float = WAIT_S) -> float:
        """Wait until each event that was published is handled, and return how long that took in seconds."""
        began = time.monotonic()

        async def is_so() -> bool:
            return len({event.asset_id for event in self.handled}) == self._published

        await eventually(is_so, f"{self._published} events are handled", within_s)
        return time.monotonic() - began

    async def members(self) -> set[str]:
        return await members(self._settings, self.group)

    async def has_members(self, count: int, within_s: float = WAIT_S) -> None:
        async def is_so() -> bool:
            return len(await self.members()) == count

        await eventually(is_so, f"the group has {count} members", within_s)


async def eventually(is_so: Callable[[], Awaitable[bool]], what: str, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not await is_so():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.1)


@asynccontextmanager
async def group_world(database_url: str, settings: ServiceSettings) -> AsyncIterator[GroupWorld]:
    """Build a world whose relay reaches the database and the broker directly."""
    await ensure_topics(settings)
    direct = Database(database_url)
    async with contextlib.AsyncExitStack() as stack:
        database = await stack.enter_async_context(FaultProxy(make_url(database_url).port or 5432))
        kafka = await stack.enter_async_context(FaultProxy(int(settings.kafka_bootstrap_servers.rpartition(":")[2]), kafka=True))
        background = await stack.enter_async_context(Background())
        background.run("relay", Relay(direct, Context.UPLOAD, settings).run)
        yield GroupWorld(direct, settings, database, kafka)
    await direct.close()
