"""Consumes events: one transaction an event (inbox, handler, outbox), committed before Kafka's offset is.

What can go wrong with a record, and what happens:

- Something that it needs is unavailable (database, store): it is retried in place until that is back, and its offset stays where
  it was. The other partitions go on.
- The handler asks for another attempt (a retryable error): it goes to `<topic>.retry` with a time before which it rests.
- It is malformed, or its handler fails for good: it goes to `<topic>.dlq` with the reason.

Both of the last two are rows of the outbox, committed before the offset: the record is never lost, and blocks no other.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

from aiokafka.errors import KafkaError
from prometheus_client import Counter, Gauge
from sqlalchemy.ext.asyncio import AsyncSession

from shared.background import is_cancelled
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.errors import TunesmithError, UnavailableError
from shared.failures import is_unavailable, is_unmigrated
from shared.messaging import cloudevents, dead_letters, inbox, outbox
from shared.messaging.cloudevents import MalformedError
from shared.messaging.dead_letters import Copy
from shared.messaging.events import Event
from shared.messaging.member import Member, Record, UnreadableError
from shared.messaging.topics import DEAD_LETTER_SUFFIX, RETRY_SUFFIX, ensure_topics
from shared.settings import ServiceSettings
from shared.telemetry import get_logger

log = get_logger(__name__)

F = TypeVar("F", bound=Event)
Handler = Callable[[AsyncSession, Any], Awaitable[None]]
Gate = Callable[[], Awaitable[None]]

ATTEMPTS = 6
_ATTEMPT = re.compile(r"[1-9][0-9]?", re.ASCII)
_FIRST_RETRY_S = 1.0
_FIRST_PAUSE_S = 0.2
_MAX_PAUSE_S = 5.0
_TRANSACTION_S = 10.0
_MAX_TRANSACTION_S = 60.0
"""A silent database is left after the first bound; each further attempt may take twice as long, which a slow one needs."""
_TRANSACTIONS = 4
"""At the same time: less than half of the connections that a process has."""
_DEAD = Counter(
    "tunesmith_dead_letters", "Records that could not be handled, and went to a dead-letter topic.", ["group", "code"]
)
_AGE = Gauge("tunesmith_consumer_last_poll_age_seconds", "Seconds since the consumer group was last polled", ["group"])


class Consumers:
    """The handlers of one consumer group. Events without a handler are passed over.

    `transaction_s` is how long the first attempt at an event may take, in seconds.
    """

    def __init__(
        self,
        *,
        context: Context,
        group: str,
        database: Database,
        settings: ServiceSettings,
        transaction_s: float = _TRANSACTION_S,
    ) -> None:
        self.group = group
        self._context = context
        self._database = database
        self._settings = settings
        self._transaction_s = transaction_s
        self._handlers: dict[str, tuple[Handler, Gate | None]] = {}
        self._topics: set[str] = set()
        self._slots = asyncio.Semaphore(_TRANSACTIONS)
        self._began: dict[object, float] = {}
        self._last_poll = time.monotonic()
        self._backoff_s, self._has_logged = _FIRST_PAUSE_S, False
        _AGE.labels(group).set_function(self.last_poll_age_s)

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
        """Consume until cancelled; wait for a broker that is unavailable, and make its topics when it is back."""
        topics = {topic + suffix for topic in self._topics for suffix in ("", RETRY_SUFFIX)}
        careful = False
        while True:
            # Every wait below has a bound: a broker that is unavailable is no reason to restart this process.
            self._last_poll = time.monotonic()
            try:
                await ensure_topics(self._settings)
                member = Member(self._settings, self.group, topics, self._bring_to_its_end, self._polled, careful=careful)
                careful = False
                await member.run()
            except UnreadableError as error:
                log.warning("consumer.unreadable", group=self.group, error=str(error))
                careful = True
            except (KafkaError, OSError, UnavailableError) as error:
                # One line an outage, not one an attempt.
                if not self._has_logged:
                    log.warning("consumer.waiting", group=self.group, error=str(error))
                self._has_logged = True
            await asyncio.sleep(self._backoff_s)
            self._backoff_s = min(self._backoff_s * 2, _MAX_PAUSE_S)

    def last_poll_age_s(self) -> float:
        """Return how long ago the group was last polled, or the broker found to be unavailable, in seconds."""
        return time.monotonic() - self._last_poll

    async def alive(self) -> None:
        """Raise UnavailableError when neither polls nor attempts at an event end: only a restart would help then.

        An event that waits at its gate, or between two attempts, is no such case.
        """
        limit_s = self._settings.consumer_silence_s
        if (age_s := self.last_poll_age_s()) > limit_s:
            msg = f"the consumer group {self.group} was last polled {age_s:.0f} s ago; the limit is {limit_s:.0f} s"
            raise UnavailableError(msg)
        if (age_s := time.monotonic() - min(self._began.values(), default=time.monotonic())) > limit_s + _MAX_TRANSACTION_S:
            msg = f"an attempt at an event of the consumer group {self.group} has hung for {age_s:.0f} s"
            raise UnavailableError(msg)

    def _polled(self) -> None:
        self._last_poll = time.monotonic()
        self._backoff_s, self._has_logged = _FIRST_PAUSE_S, False

    async def _bring_to_its_end(self, record: Record, problem: str) -> bool:
        """Return True when the record is handled, will be retried later, or is a dead letter, as one with a problem is.

        False at once for one that this group passes over.
        """
        if not (problem or self._wants(record)):
            return False
        pause_s, bound_s, is_first = _FIRST_PAUSE_S, self._transaction_s, True
        while True:
            try:
                if problem:
                    await self._put_aside(record, "unreadable", problem, bound_s)
                else:
                    await self._settle(record, bound_s)
            except (Exception, asyncio.CancelledError) as error:
                if is_cancelled():
                    raise
                if is_first:
                    log.warning("consumer.dependency_unavailable", group=self.group, topic=record.topic, error=repr(error))
                is_first = False
            else:
                return True
            await asyncio.sleep(pause_s)
            pause_s, bound_s = min(pause_s * 2, _MAX_PAUSE_S), min(bound_s * 2, _MAX_TRANSACTION_S)

    def _wants(self, record: Record) -> bool:
        headers = cloudevents.decode_headers(record.headers)
        # What stands on a retry topic is for the group that asked for it; anywhere else the header means nothing.
        if record.topic.endswith(RETRY_SUFFIX) and headers.get("ts_group", self.group) != self.group:
            return False
        kind = headers.get("ce_type", "")
        return kind in self._handlers or kind not in cloudevents.EVENTS

    async def _settle(self, record: Record, bound_s: float) -> None:
        """Make one attempt to bring the record to its end. Raises where another attempt may do so."""
        headers = cloudevents.decode_headers(record.headers)
        kind = headers.get("ce_type", "")
        try:
            await self._handle(record, headers, kind, bound_s)
        except MalformedError as error:
            await self._put_aside(record, "malformed", str(error), bound_s)
        except UnavailableError:
            raise
        except TunesmithError as error:
            if error.retryable:
                await self._try_later(record, headers, error, bound_s)
            else:
                await self._put_aside(record, error.code, error.message, bound_s)
        except Exception as error:
            if is_unavailable(error) or is_unmigrated(error):
                raise
            log.exception("consumer.failed", group=self.group, type=kind)
            await self._put_aside(record, type(error).__name__, str(error), bound_s)

    async def _handle(self, record: Record, headers: dict[str, str], kind: str, bound_s: float) -> None:
        event_id = cloudevents.event_id(headers)
        event = cloudevents.parse(headers, record.value)
        handler, gate = self._handlers[kind]
        if gate:
            await gate()
        async with self._transaction(bound_s) as session:
            if await inbox.is_new(session, self._context, event_id, self.group, record.topic, record.partition):
                await handler(session, event)

    async def _try_later(self, record: Record, headers: dict[str, str], error: TunesmithError, bound_s: float) -> None:
        written, kept = headers.get("ts_attempt", "1"), dead_letters.copy(record)
        if not _ATTEMPT.fullmatch(written):
            reason = f"the header ts_attempt is {written!r}, which is no number from 1 to 99; its handler said: {error.message}"
            await self._put_aside(record, "malformed", reason, bound_s)
            return
        attempt = int(written)
        if attempt >= ATTEMPTS or not kept.is_whole:
            await self._put_aside(record, error.code, f"after {attempt} attempts: {error.message}", bound_s)
            return
        rest = timedelta(seconds=_FIRST_RETRY_S * 2 ** (attempt - 1))
        kept = kept.with_headers(ts_attempt=str(attempt + 1), ts_group=self.group)
        await self._enqueue(record, kept, RETRY_SUFFIX, bound_s, not_before=datetime.now(UTC) + rest)

    async def _put_aside(self, record: Record, code: str, reason: str, bound_s: float) -> None:
        source = f"{record.topic}/{record.partition}/{record.offset}"
        reason = dead_letters.fit(reason)
        _DEAD.labels(self.group, code).inc()
        log.error("consumer.dead_letter", group=self.group, source=source, code=code, reason=reason)
        letter = dead_letters.copy(record).with_headers(ts_group=self.group, ts_code=code, ts_reason=reason, ts_source=source)
        try:
            await self._enqueue(record, letter, DEAD_LETTER_SUFFIX, bound_s)
        except Exception as error:
            if is_unavailable(error) or is_unmigrated(error):
                raise
            log.exception("consumer.dead_letter_refused", group=self.group, source=source)
            await self._enqueue(record, letter.bare(), DEAD_LETTER_SUFFIX, bound_s)

    async def _enqueue(
        self, record: Record, kept: Copy, suffix: str, bound_s: float, *, not_before: datetime | None = None
    ) -> None:
        topic = record.topic.removesuffix(RETRY_SUFFIX) + suffix
        # A row of its own each time: the event's id stays in ce_id, where the inbox looks for it.
        async with self._transaction(bound_s) as session:
            await outbox.enqueue(session, self._context, uuid4(), topic, kept.key, kept.headers, kept.body, not_before=not_before)

    @asynccontextmanager
    async def _transaction(self, bound_s: float) -> AsyncGenerator[AsyncSession]:
        async with self._slots:
            attempt = object()
            self._began[attempt] = time.monotonic()
            try:
                async with asyncio.timeout(bound_s), self._database.begin() as session:
                    yield session
            finally:
                del self._began[attempt]
