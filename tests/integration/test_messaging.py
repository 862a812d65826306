"""Events travel from a transaction to a handler: once in effect, in order, and past what is broken."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from deploy.local.commands import dlq
from shared.background import Background
from shared.database.sessions import Database
from shared.database.tables import OUTBOXES, Context
from shared.errors import LimitError
from shared.messaging import outbox
from shared.messaging.consumer import Consumers
from shared.messaging.events import AssetDeleted, AssetReady
from shared.messaging.hints import Hints
from shared.messaging.relay import Relay
from shared.messaging.topics import ensure_topics
from shared.settings import ServiceSettings

MakeSettings = Callable[..., ServiceSettings]
WAIT_S = 30


@pytest.fixture
async def settings(make_settings: MakeSettings) -> ServiceSettings:
    settings = make_settings(outbox_poll_s=0.1)
    await ensure_topics(settings)
    return settings


@pytest.fixture
async def database(settings: ServiceSettings) -> AsyncIterator[Database]:
    database = Database.from_settings(settings, application_name="test")
    yield database
    await database.close()


def deleted(asset_id: str, version: int = 1) -> AssetDeleted:
    return AssetDeleted(asset_id=asset_id, account_id="a", version=version)


class Recorder:
    """Collects the events of this test's own assets: topics are shared with other tests."""

    def __init__(self, database: Database, settings: ServiceSettings) -> None:
        self.prefix = f"asset_{uuid4().hex}"
        self.heard: list[AssetDeleted] = []
        self.changed = asyncio.Event()
        self.fail: dict[str, list[Exception]] = {}
        self.consumers = Consumers(context=Context.UPLOAD, group=f"test-{self.prefix}", database=database, settings=settings)

        @self.consumers.on(AssetDeleted)
        async def handle(_session: AsyncSession, event: AssetDeleted) -> None:
            if not event.asset_id.startswith(self.prefix):
                return
            if self.fail.get(event.asset_id):
                raise self.fail[event.asset_id].pop(0)
            self.heard.append(event)
            self.changed.set()

    async def until(self, count: int) -> list[AssetDeleted]:
        async with asyncio.timeout(WAIT_S):
            while len(self.heard) < count:
                self.changed.clear()
                await self.changed.wait()
        return self.heard


@pytest.fixture
async def recorder(database: Database, settings: ServiceSettings) -> AsyncIterator[Recorder]:
    recorder = Recorder(database, settings)
    async with Background() as background:
        background.run("relay", Relay(database, Context.UPLOAD, settings).run)
        background.run("consumers", recorder.consumers.run)
        yield recorder


async def test_a_event_of_a_committed_transaction_arrives(database: Database, recorder: Recorder) -> None:
    event = deleted(recorder.prefix)
    async with database.begin() as session:
        await outbox.publish(session, Context.UPLOAD, event)

    assert await recorder.until(1) == [event]


async def test_a_event_of_a_transaction_that_failed_does_not(database: Database, recorder: Recorder) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.begin() as session:
            await outbox.publish(session, Context.UPLOAD, deleted(recorder.prefix + "lost"))
            raise ZeroDivisionError
    async with database.begin() as session:
        await outbox.publish(session, Context.UPLOAD, deleted(recorder.prefix + "kept"))

    assert [event.asset_id for event in await recorder.until(1)] == [recorder.prefix + "kept"]


async def test_events_of_one_key_arrive_in_order(database: Database, recorder: Recorder) -> None:
    for version in range(1, 51):
        async with database.begin() as session:
            await outbox.publish(session, Context.UPLOAD, deleted(recorder.prefix, version))

    assert [event.version for event in await recorder.until(50)] == list(range(1, 51))


async def test_the_outbox_is_empty_once_the_broker_has_all(database: Database, recorder: Recorder) -> None:
    async with database.begin() as session:
        await outbox.publish(session, Context.UPLOAD, *(deleted(recorder.prefix + str(i)) for i in range(20)))
    await recorder.until(20)

    async with asyncio.timeout(WAIT_S):
        while True:
            async with database.begin() as session:
                if await session.scalar(select(func.count()).select_from(OUTBOXES[Context.UPLOAD])) == 0:
                    return


async def test_a_redelivered_event_is_handled_once(database: Database, recorder: Recorder, settings: ServiceSettings) -> None:
    event = deleted(recorder.prefix)
    headers = [(k, v.encode()) for k, v in outbox.cloudevents.headers(event, uuid4(), source="test").items()]
    async with _producer(settings) as producer:
        for _ in range(3):
            await producer.send_and_wait(event.topic, event.model_dump_json().encode(), key=b"k", headers=headers)
        last = deleted(recorder.prefix + "last")
        async with database.begin() as session:
            await outbox.publish(session, Context.UPLOAD, last)

    assert sorted(f.asset_id for f in await recorder.until(2)) == [event.asset_id, last.asset_id]


async def test_a_handler_that_asks_for_another_try_gets_it(database: Database, recorder: Recorder) -> None:
    recorder.fail[recorder.prefix] = [LimitError("too many at once")]
    async with database.begin() as session:
        await outbox.publish(session, Context.UPLOAD, deleted(recorder.prefix))

    assert [event.asset_id for event in await recorder.until(1)] == [recorder.prefix]


async def test_what_is_away_is_waited_for_and_nothing_overtakes(database: Database, recorder: Recorder) -> None:
    recorder.fail[recorder.prefix] = [ConnectionError("the store is away") for _ in range(3)]
    for version in (1, 2):
        async with database.begin() as session:
            await outbox.publish(session, Context.UPLOAD, deleted(recorder.prefix, version))

    assert [event.version for event in await recorder.until(2)] == [1, 2]


async def test_poison_becomes_a_dead_letter_with_its_reason_and_blocks_nobody(
    database: Database, recorder: Recorder, settings: ServiceSettings
) -> None:
    poison = recorder.prefix + "poison"
    recorder.fail[poison] = [ValueError("cannot be handled")]
    async with _dead_letters(settings) as letters:
        async with _producer(settings) as producer:
            await producer.send_and_wait("assets", b"{not json", key=b"x", headers=[("ce_type", b"asset.deleted")])
        async with database.begin() as session:
            await outbox.publish(session, Context.UPLOAD, deleted(poison), deleted(recorder.prefix + "neighbour"))

        assert [event.asset_id for event in await recorder.until(1)] == [recorder.prefix + "neighbour"]
        found: dict[str, str] = {}
        async with asyncio.timeout(WAIT_S):
            async for record in letters:
                headers = {name: value.decode() for name, value in record.headers}
                if headers["ts_group"] == recorder.consumers.group:
                    found[headers["ts_code"]] = headers["ts_reason"]
                if len(found) == 2:
                    break
    assert found["ValueError"] == "cannot be handled"
    assert "ce_id" in found["malformed"]


async def test_a_dead_letter_that_is_replayed_after_the_mending_is_handled(
    database: Database, recorder: Recorder, settings: ServiceSettings
) -> None:
    recorder.fail[recorder.prefix] = [ValueError("not mended yet")]
    async with _dead_letters(settings) as letters:
        async with database.begin() as session:
            await outbox.publish(session, Context.UPLOAD, deleted(recorder.prefix))
        async with asyncio.timeout(WAIT_S):
            async for letter in letters:
                # The group also meets what other tests have left on the topic, and puts that aside.
                if {("ts_group", recorder.consumers.group.encode()), ("ts_code", b"ValueError")} <= set(letter.headers):
                    break
    assert recorder.heard == []

    await asyncio.to_thread(dlq.replay, [f"{letter.topic}/{letter.offset}"], settings.kafka_bootstrap_servers, None)

    assert [event.asset_id for event in await recorder.until(1)] == [recorder.prefix]


async def test_everybody_who_listens_hears_a_hint(database: Database, settings: ServiceSettings) -> None:
    asset_id = f"asset_{uuid4().hex}"
    heard = [asyncio.Event(), asyncio.Event()]

    def hear(came: asyncio.Event) -> Callable[[AssetReady], None]:
        return lambda event: came.set() if event.asset_id == asset_id else None

    async with Background() as background:
        listeners = [Hints(settings, [AssetReady], hear(came)) for came in heard]  # pyright: ignore[reportArgumentType]
        for number, listener in enumerate(listeners):
            background.run(f"hints {number}", listener.run)
            await asyncio.wait_for(listener.listening.wait(), WAIT_S)
        background.run("relay", Relay(database, Context.UPLOAD, settings).run)
        async with database.begin() as session:
            ready = AssetReady(asset_id=asset_id, account_id="a", version=1, asset_type="file", name="n")
            await outbox.publish(session, Context.UPLOAD, ready)

        await asyncio.wait_for(asyncio.gather(*(came.wait() for came in heard)), WAIT_S)


@asynccontextmanager
async def _producer(settings: ServiceSettings) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, acks="all")
    await producer.start()
    yield producer
    await producer.stop()


@asynccontextmanager
async def _dead_letters(settings: ServiceSettings) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    partition = TopicPartition("assets.dlq", 0)
    consumer.assign([partition])
    await consumer.seek_to_end(partition)
    yield consumer
    await consumer.stop()
