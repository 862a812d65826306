"""Consumes events: one transaction an event (inbox, handler, outbox), committed before Kafka's offset is.

FastStream's own acknowledgement is switched off. `ack()` there commits whatever was consumed of every partition, so the
next message's ack would also pass a failed one; here each record commits its own partition's offset, by number. Decoding is
ours as well, since a message that FastStream cannot decode never reaches a handler.

What can go wrong with a record, and what happens:

- something that it needs is away (database, store): it is tried again in place, and after `_PATIENCE_S` the consumer leaves
  its group and comes back later; the offset stays where it was.
- the handler asks for another try (a retryable error): it goes to `<topic>.retry` with a time before which it rests.
- it is malformed, or its handler fails for good: it goes to `<topic>.dlq` with the reason.

Both of the last two are rows of the outbox, committed before the offset: the record is never lost, and blocks nobody.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.sessions import Database
from shared.database.tables import Context
from shared.errors import TunesmithError, UnavailableError
from shared.failures import is_unavailable
from shared.messaging import cloudevents, inbox, outbox
from shared.messaging.clients import end_within, start_whole
from shared.messaging.cloudevents import MalformedError
from shared.messaging.events import Event
from shared.messaging.topics import DEAD_LETTER_SUFFIX, RETRY_SUFFIX, ensure_topics
from shared.settings import ServiceSettings
from shared.telemetry import get_logger

log = get_logger(__name__)

F = TypeVar("F", bound=Event)
Handler = Callable[[AsyncSession, Any], Awaitable[None]]
Gate = Callable[[], Awaitable[None]]

ATTEMPTS = 6
_FIRST_RETRY_S = 1.0
_PATIENCE_S = 20.0
_MAX_BACKOFF_S = 5.0
_STOP_TIMEOUT_S = 5.0
_WATCH_EVERY_S = 2.0
_MAX_POLL_INTERVAL_MS = 600_000
"""An image worker holds a record while it is busy; this is far above what a batch of images takes."""


class Consumers:
    """The handlers of one consumer group. Events without a handler are passed over."""

    def __init__(self, *, context: Context, group: str, database: Database, settings: ServiceSettings) -> None:
        self.group = group
        self._context = context
        self._database = database
        self._settings = settings
        self._handlers: dict[str, tuple[Handler, Gate | None]] = {}
        self._topics: set[str] = set()
        self._broken = asyncio.Event()
        self._last_poll = time.monotonic()

    def on(self, kind: type[F], *, gate: Gate | None = None) -> Callable[[Callable[[AsyncSession, F], Awaitable[None]]], None]:
        """Return a decorator that makes a function the handler of an event.

        It runs in a transaction that its caller commits. `gate` is awaited before the transaction begins: a worker
        without room holds the record there.
        """

        def register(handler: Callable[[AsyncSession, F], Awaitable[None]]) -> None:
            self._handlers[kind.type] = (handler, gate)
            self._topics.add(kind.topic)

        return register

    async def run(self) -> None:
        """Consume until cancelled; a broker that is away is waited for, and its topics are made when it comes back."""
        backoff_s, said = 0.5, False
        while True:
            broker = self._broker()
            self._broken.clear()
            try:
                await ensure_topics(self._settings)
                await start_whole(broker.start())
                backoff_s, said = 0.5, False
                await self._watch()
            except (KafkaError, OSError, UnavailableError) as error:
                if not said:
                    log.warning("consumer.waiting", group=self.group, error=str(error))
                said = True
            finally:
                await end_within(_STOP_TIMEOUT_S, broker.stop())
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)

    def last_poll_age_s(self) -> float:
        """Return how long ago the consumer last proved that it can reach its broker or was handed a record."""
        return time.monotonic() - self._last_poll

    def _broker(self) -> KafkaBroker:
        broker = KafkaBroker(
            self._settings.kafka_bootstrap_servers, client_id=self.group, graceful_timeout=_STOP_TIMEOUT_S, logger=None
        )
        for topic in sorted(self._topics):
            subscriber = broker.subscriber(
                topic,
                topic + RETRY_SUFFIX,
                group_id=self.group,
                ack_policy=AckPolicy.MANUAL,
                auto_offset_reset="earliest",
                max_poll_interval_ms=_MAX_POLL_INTERVAL_MS,
                decoder=_undecoded,
            )
            subscriber(self._consume)
        return broker

    async def _watch(self) -> None:
        """Return when the connection should be made anew: a record could not be handled, or the broker lost its topics.

        Raises UnavailableError when the broker went away. Where it lost its data, this process's place in its log means
        nothing.
        """
        while not self._broken.is_set() and not await ensure_topics(self._settings):
            self._last_poll = time.monotonic()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._broken.wait(), _WATCH_EVERY_S)

    async def _consume(self, _body: bytes, message: KafkaMessage) -> None:
        """Handle one record and commit its offset; never returns for a record that must not be passed."""
        record = message.raw_message
        assert isinstance(record, ConsumerRecord)  # noqa: S101 - batches are not asked for
        began = time.monotonic()
        backoff_s = 0.2
        while True:
            self._last_poll = time.monotonic()
            try:
                await self._settle(record)
                break
            except (OperationalError, InterfaceError, DBAPIError, OSError, UnavailableError, TimeoutError) as error:
                log.warning("consumer.dependency_away", group=self.group, topic=record.topic, error=repr(error))
                if time.monotonic() - began > _PATIENCE_S:
                    self._broken.set()
                    # Returning would let the next record's offset pass this one's. Stopping the broker cancels us.
                    await asyncio.Event().wait()
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
        consumer = message.consumer
        assert isinstance(consumer, AIOKafkaConsumer)  # noqa: S101 - FastStream's types are wider than what it hands over
        try:
            await consumer.commit({TopicPartition(record.topic, record.partition): record.offset + 1})
        except KafkaError as error:
            # The partition is another member's by now; it will see the record again, and the inbox knows it.
            log.info("consumer.commit_refused", group=self.group, topic=record.topic, error=repr(error))

    async def _settle(self, record: ConsumerRecord[bytes, bytes]) -> None:
        """Bring the record to one of its ends: handled, retried later, or a dead letter."""
        headers = cloudevents.decode_headers(record.headers)
        if headers.get("ts_group", self.group) != self.group:
            return
        kind = headers.get("ce_type", "")
        if kind not in self._handlers and kind in cloudevents.EVENTS:
            return
        try:
            await self._handle(record, headers, kind)
        except MalformedError as error:
            await self._put_aside(record, headers, "malformed", str(error))
        except UnavailableError:
            raise
        except TunesmithError as error:
            if error.retryable:
                await self._try_later(record, headers, error)
            else:
                await self._put_aside(record, headers, error.code, error.message)
        except Exception as error:
            if is_unavailable(error):
                raise
            log.exception("consumer.failed", group=self.group, type=kind)
            await self._put_aside(record, headers, type(error).__name__, str(error))

    async def _handle(self, record: ConsumerRecord[bytes, bytes], headers: dict[str, str], kind: str) -> None:
        event_id = cloudevents.event_id(headers)
        event = cloudevents.parse(headers, record.value)
        handler, gate = self._handlers[kind]
        if gate:
            await gate()
        async with self._database.begin() as session:
            if await inbox.is_new(session, self._context, event_id, self.group, record.topic, record.partition):
                await handler(session, event)

    async def _try_later(self, record: ConsumerRecord[bytes, bytes], headers: dict[str, str], error: TunesmithError) -> None:
        attempt = int(headers.get("ts_attempt", "1"))
        if attempt >= ATTEMPTS:
            await self._put_aside(record, headers, error.code, f"after {attempt} attempts: {error.message}")
            return
        rest = timedelta(seconds=_FIRST_RETRY_S * 2 ** (attempt - 1))
        headers |= {"ts_attempt": str(attempt + 1), "ts_group": self.group}
        await self._enqueue(record, headers, RETRY_SUFFIX, not_before=datetime.now(UTC) + rest)

    async def _put_aside(self, record: ConsumerRecord[bytes, bytes], headers: dict[str, str], code: str, reason: str) -> None:
        log.error("consumer.dead_letter", group=self.group, topic=record.topic, offset=record.offset, code=code, reason=reason)
        headers |= {
            "ts_group": self.group,
            "ts_code": code,
            "ts_reason": reason[:1000],
            "ts_source": f"{record.topic}/{record.partition}/{record.offset}",
        }
        await self._enqueue(record, headers, DEAD_LETTER_SUFFIX)

    async def _enqueue(
        self, record: ConsumerRecord[bytes, bytes], headers: dict[str, str], suffix: str, *, not_before: datetime | None = None
    ) -> None:
        topic = record.topic.removesuffix(RETRY_SUFFIX) + suffix
        key = (record.key or b"").decode(errors="replace")
        # A row of its own each time: the event's id stays in ce_id, where the inbox looks for it.
        async with self._database.begin() as session:
            await outbox.enqueue(session, self._context, uuid4(), topic, key, headers, record.value or b"", not_before=not_before)


async def _undecoded(message: KafkaMessage) -> bytes:
    return message.body
