"""Events reach their handlers: once in effect, in order, and past records that cannot be handled."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.structs import RecordMetadata
from prometheus_client import REGISTRY
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
from tests.support.waiting import eventually

MakeSettings = Callable[..., ServiceSettings]
WAIT_S = 60


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


async def test_an_event_of_a_committed_transaction_arrives(database: Database, recorder: Recorder) -> None:
    event = deleted(recorder.prefix)
    async with database.begin() as session:
        await outbox.publish(session, Context.UPLOAD, event)

    assert await recorder.until(1) == [event]


async def test_an_event_of_a_transaction_that_failed_does_not_arrive(database: Database, recorder: Recorder) -> None:
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


async def test_an_event_whose_handler_raises_a_retryable_error_is_retried(database: Database, recorder: Recorder) -> None:
    recorder.fail[recorder.prefix] = [LimitError("too many at once")]
    async with database.begin() as session:
        await outbox.publish(session, Context.UPLOAD, deleted(recorder.prefix))

    assert [event.asset_id for event in await recorder.until(1)] == [recorder.prefix]


async def test_a_record_is_retried_while_a_dependency_is_unavailable_and_none_overtakes_it(
    database: Database, recorder: Recorder
) -> None:
    recorder.fail[recorder.prefix] = [ConnectionError("the store is unavailable") for _ in range(3)]
    for version in (1, 2):
        async with database.begin() as session:
            await outbox.publish(session, Context.UPLOAD, deleted(recorder.prefix, version))

    assert [event.version for event in await recorder.until(2)] == [1, 2]


async def test_a_record_that_cannot_be_handled_becomes_a_dead_letter_with_its_reason_and_blocks_none(
    database: Database, recorder: Recorder, settings: ServiceSettings
) -> None:
    unwanted = recorder.prefix + "unwanted"
    recorder.fail[unwanted] = [ValueError("cannot be handled")]
    async with _dead_letters(settings) as letters:
        async with _producer(settings) as producer:
            malformed = await producer.send_and_wait("assets", b"{not json", key=b"x", headers=[("ce_type", b"asset.deleted")])
        async with database.begin() as session:
            await outbox.publish(session, Context.UPLOAD, deleted(unwanted), deleted(recorder.prefix + "neighbour"))

        assert [event.asset_id for event in await recorder.until(1)] == [recorder.prefix + "neighbour"]
        found = await _letters(letters, recorder, [_is_of(malformed), _has_code("ValueError")])
    (first, _), (second, _) = found
    assert (first["ts_code"], first["ts_reason"]) == ("malformed", "the header ce_id is None; it must be a UUID")
    assert second["ts_reason"] == "cannot be handled"
    group = recorder.consumers.group
    assert REGISTRY.get_sample_value("tunesmith_dead_letters_total", {"group": group, "code": "ValueError"}) == 1


async def test_records_that_wait_are_the_lag_of_their_group(database: Database, recorder: Recorder) -> None:
    async def lag(wanted: Callable[[float], bool]) -> bool | None:
        found = REGISTRY.get_sample_value("tunesmith_consumer_lag", {"group": recorder.consumers.group, "topic": "assets"})
        return True if found is not None and wanted(found) else None

    recorder.fail[recorder.prefix] = [ConnectionError("the store is unavailable") for _ in range(100)]
    for version in (1, 2):
        async with database.begin() as session:
            await outbox.publish(session, Context.UPLOAD, deleted(recorder.prefix, version))
    await eventually(lambda: lag(lambda found: found >= 2))

    recorder.fail.clear()
    await recorder.until(2)
    await eventually(lambda: lag(lambda found: found == 0))


async def test_a_dead_letter_is_written_whatever_characters_the_record_and_its_error_have(
    database: Database, recorder: Recorder, settings: ServiceSettings
) -> None:
    event = deleted(recorder.prefix + "unwanted")
    recorder.fail[event.asset_id] = [ValueError("a NUL \0 and a surrogate \ud800")]
    headers = outbox.cloudevents.headers(event, uuid4(), source="test") | {"ce_source": "a NUL \0"}
    async with _dead_letters(settings) as letters:
        async with _producer(settings) as producer:
            body, raw = event.model_dump_json().encode(), [(name, value.encode()) for name, value in headers.items()]
            written = await producer.send_and_wait(event.topic, body, key=b"a NUL \0, no UTF-8 \xff", headers=raw)
        found, letter = await _letter(letters, recorder, _is_of(written))
    assert (found["ts_reason"], found["ce_source"]) == (r"a NUL \x00 and a surrogate \ud800", r"a NUL \x00")
    assert (letter.key or b"").decode() == r"a NUL \x00, no UTF-8 \xff"
    assert letter.value == body


async def test_a_dead_letter_cuts_a_body_that_is_too_large_for_the_outbox(
    database: Database, recorder: Recorder, settings: ServiceSettings
) -> None:
    async with _dead_letters(settings) as letters:
        async with _producer(settings) as producer:
            large = b"x" * (outbox.MAX_BODY_BYTES + 1)
            written = await producer.send_and_wait("assets", large, key=b"x", headers=[("ce_type", b"asset.deleted")])
        found, letter = await _letter(letters, recorder, _is_of(written))
    assert letter.value == large[: outbox.MAX_BODY_BYTES]
    assert found["ts_cut"] == "body of 262145 bytes"


async def test_a_dead_letter_that_is_replayed_after_its_cause_was_fixed_is_handled(
    database: Database, recorder: Recorder, settings: ServiceSettings
) -> None:
    recorder.fail[recorder.prefix] = [ValueError("not fixed yet")]
    async with _dead_letters(settings) as letters:
        async with database.begin() as session:
            await outbox.publish(session, Context.UPLOAD, deleted(recorder.prefix))
        _, letter = await _letter(letters, recorder, _has_code("ValueError"))
    assert recorder.heard == []

    await asyncio.to_thread(dlq.replay, [f"{letter.topic}/{letter.offset}"], settings.kafka_bootstrap_servers, None)

    assert [event.asset_id for event in await recorder.until(1)] == [recorder.prefix]


async def test_every_listener_hears_a_hint(database: Database, settings: ServiceSettings) -> None:
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


async def _letter(
    letters: AIOKafkaConsumer, recorder: Recorder, is_wanted: Callable[[dict[str, str]], bool]
) -> tuple[dict[str, str], ConsumerRecord[bytes, bytes]]:
    """Wait for the dead letter of the recorder's group whose headers are wanted, and return it with its headers."""
    return (await _letters(letters, recorder, [is_wanted]))[0]


async def _letters(
    letters: AIOKafkaConsumer, recorder: Recorder, wanted: list[Callable[[dict[str, str]], bool]]
) -> list[tuple[dict[str, str], ConsumerRecord[bytes, bytes]]]:
    """Wait for one dead letter of the recorder's group for each of these, in whichever order they come.

    The group also makes dead letters of records that other tests have left on the topic.
    """
    found: dict[int, tuple[dict[str, str], ConsumerRecord[bytes, bytes]]] = {}
    async with asyncio.timeout(WAIT_S):
        async for letter in letters:
            headers = {name: value.decode() for name, value in letter.headers}
            if headers["ts_group"] == recorder.consumers.group:
                found |= {number: (headers, letter) for number, is_wanted in enumerate(wanted) if is_wanted(headers)}
            if len(found) == len(wanted):
                return [found[number] for number in range(len(wanted))]
    raise AssertionError


def _has_code(code: str) -> Callable[[dict[str, str]], bool]:
    return lambda headers: headers["ts_code"] == code


def _is_of(written: RecordMetadata) -> Callable[[dict[str, str]], bool]:
    source = f"{written.topic}/{written.partition}/{written.offset}"
    return lambda headers: headers["ts_source"] == source


@asynccontextmanager
async def _producer(settings: ServiceSettings) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, acks="all")
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def _dead_letters(settings: ServiceSettings) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    partition = TopicPartition("assets.dlq", 0)
    consumer.assign([partition])
    await consumer.seek_to_end(partition)
    try:
        yield consumer
    finally:
        await consumer.stop()
