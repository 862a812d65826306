"""Sends a context's outbox to Kafka: one active relay, in order, and a row is deleted once the broker has acknowledged it."""

import asyncio
import contextlib
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidTopicError, MessageSizeTooLargeError
from prometheus_client import Counter, Gauge
from sqlalchemy import Row, delete, func, or_, select, text, update

from shared.database.listen import Listener
from shared.database.sessions import Database
from shared.database.tables import OUTBOXES, Context
from shared.messaging.clients import abort_client, connection, end_within, start_whole
from shared.messaging.outbox import channel
from shared.messaging.topics import NAMES, ensure_topics
from shared.settings import ServiceSettings
from shared.telemetry import get_logger

log = get_logger(__name__)

MEASURE_EVERY_S = 15.0
_BATCH = 500
_SEND_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 2.0
_MAX_BACKOFF_S = 5.0
_REST = timedelta(hours=1)
"""How long a row that cannot be sent rests, before the next attempt: the rows behind it are sent meanwhile."""
_REFUSED = Counter("tunesmith_outbox_refused", "Rows of the outbox that could not be sent as they are", ["context"])
_DEPTH = Gauge("tunesmith_outbox_rows", "Events that wait for the broker", ["context"])
_OLDEST = Gauge("tunesmith_outbox_oldest_seconds", "Time that the oldest event has been due for the broker", ["context"])


class Relay:
    """The relay of one context. Each replica may run one: a lock in the database lets one of them work at a time.

    The transaction that reads and deletes the rows holds the lock, and `idle_in_transaction_session_timeout` bounds it: a relay
    whose process is paused loses both, and another sends its rows again, with the same event ids.
    """

    def __init__(self, database: Database, context: Context, settings: ServiceSettings) -> None:
        self._database = database
        self._context = context
        self._table = OUTBOXES[context]
        self._settings = settings
        self._poll_s = settings.outbox_poll_s
        self._wake = asyncio.Event()
        # Wakes the relay when a transaction has written to the outbox; when notifications are lost, it polls.
        self._listener = Listener(settings, channel(context), lambda _: self._wake.set())
        self._producer: AIOKafkaProducer | None = None
        self._failing = False

    async def run(self) -> None:
        """Relay until cancelled, and wait while the broker or the database is unavailable."""
        listening = asyncio.create_task(self._listener.run())
        backoff_s = self._poll_s
        try:
            while True:
                self._wake.clear()
                try:
                    sent = await self._relay_batch()
                except Exception as error:  # noqa: BLE001 - after any error the rows are still there, and sent again
                    await self._give_up(error)
                    await asyncio.sleep(backoff_s)
                    backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
                    continue
                self._failing, backoff_s = False, self._poll_s
                if not sent:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._wake.wait(), self._poll_s)
        finally:
            listening.cancel()
            await self._discard()

    async def measure(self) -> None:
        """Publish how many rows are due, and since when; every replica sees the same."""
        due_at = func.greatest(self._table.c.created_at, self._table.c.not_before)
        oldest = func.extract("epoch", func.now() - func.min(due_at))
        async with self._database.begin() as session:
            rows, oldest_s = (await session.execute(select(func.count(), oldest).where(due_at <= func.now()))).one()
        _DEPTH.labels(self._context).set(rows)
        _OLDEST.labels(self._context).set(oldest_s or 0)

    async def _relay_batch(self) -> int:
        """Send the rows that are due, and return how many; 0 also when another relay holds the lock."""
        producer = await self._connected()
        due = or_(self._table.c.not_before.is_(None), self._table.c.not_before <= func.now())
        async with self._database.begin() as session:
            lock = text("SELECT pg_try_advisory_xact_lock(hashtext(:name))")
            if not await session.scalar(lock, {"name": f"relay_{self._context}"}):
                return 0
            # Rows of one key are inserted under their aggregate's lock, so their ids are in the order of the commits. A row of
            # another key may become visible after one with a higher id; between keys the order does not matter.
            rows = (await session.execute(select(self._table).where(due).order_by(self._table.c.id).limit(_BATCH))).all()
            if not rows:
                return 0
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                # One after the other: two at once could change places while they wait for room in their partition's batch.
                acks = [await _send(producer, row) for row in rows]
                sent = await asyncio.gather(*acks, return_exceptions=True)
            errors = [error for error in sent if isinstance(error, BaseException)]
            refused = {row.id: error for row, error in zip(rows, sent, strict=True) if _is_about_the_row(error)}
            if len(errors) > len(refused) and not refused:
                raise errors[0]
            for row_id, error in refused.items():
                _REFUSED.labels(self._context).inc()
                log.error("relay.refused", context=self._context, row=row_id, error=repr(error), retry_in_s=_REST.seconds)
                later = update(self._table).where(self._table.c.id == row_id)
                await session.execute(later.values(not_before=func.now() + _REST))
            if len(errors) == len(refused):
                acknowledged = [row.id for row in rows if row.id not in refused]
                await session.execute(delete(self._table).where(self._table.c.id.in_(acknowledged)))
        if refused:
            # aiokafka 0.14 has counted the refused record, and the broker would refuse the next ones as out of order.
            await self._discard()
        return len(rows)

    async def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            # At every connect, because the broker may have lost its data.
            await ensure_topics(self._settings)
            producer = AIOKafkaProducer(
                **connection(self._settings),
                enable_idempotence=True,
                acks="all",
                linger_ms=5,
                request_timeout_ms=int(_SEND_TIMEOUT_S * 1000),
            )
            self._producer = producer
            async with asyncio.timeout(_SEND_TIMEOUT_S):
                await start_whole(producer.start())
        return self._producer

    async def _give_up(self, error: Exception) -> None:
        # One line an outage, not one an attempt.
        if not self._failing:
            log.warning("relay.waiting", context=self._context, error=repr(error))
        self._failing = True
        await self._discard()

    async def _discard(self) -> None:
        """Discard the producer without flushing it: what it still holds is in the outbox, and is sent again."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        await end_within(_STOP_TIMEOUT_S, _abort(producer))
        await abort_client(producer.client)


async def _send(producer: AIOKafkaProducer, row: Row[Any]) -> Awaitable[Any]:
    """Hand a row to the producer, and return its acknowledgement, or its error if the row cannot be sent as it is."""
    failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    if row.topic not in NAMES:
        failed.set_exception(InvalidTopicError(f"there is no topic {row.topic!r}"))
        return failed
    try:
        headers = [(name, value.encode()) for name, value in row.headers.items()]
        return await producer.send(row.topic, row.body, key=row.key.encode(), headers=headers)
    except Exception as error:
        if not _is_about_the_row(error):
            raise
        failed.set_exception(error)
        return failed


def _is_about_the_row(error: BaseException | None) -> bool:
    """Say whether the row cannot be sent as it is, whatever becomes of the broker."""
    return isinstance(error, MessageSizeTooLargeError | InvalidTopicError | AttributeError | TypeError | ValueError)


async def _abort(producer: AIOKafkaProducer) -> None:
    # aiokafka 0.14 cannot stop without flushing, so close its sender and its connections directly.
    producer._closed = True  # noqa: SLF001
    await producer._sender.close()  # noqa: SLF001
    await producer.client.close()
