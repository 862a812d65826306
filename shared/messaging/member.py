"""One membership in a consumer group, from its start to its last task and connection.

It polls without a pause and handles the records of each partition one after the other, in a task of its own. So a record that
has to wait (for a dependency, or for room) holds its partition alone, and the member stays in its group meanwhile: with
handlers inside of the poll, every outage of a dependency would end in a rebalance, or in a member that looks dead.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CorruptRecordException, KafkaError, UnsupportedCodecError
from prometheus_client import Gauge

from shared.messaging.clients import check_topics, connection, end_consumer, end_process, start_whole
from shared.settings import ServiceSettings
from shared.telemetry import get_logger

log = get_logger(__name__)

_START_S = 15.0
_STOP_S = 5.0
_CANCEL_S = 10.0
_POLL_S = 1.0
_MAX_POLL_INTERVAL_S = 60.0
"""After that long without a poll, the member leaves its group by itself."""
_WATCH_EVERY_S = 5.0
_ANSWER_S = 10.0
_BATCH = 100
_RECOMMIT_S = 1.0
_CAREFUL_S = 30.0
_CAREFUL_PAUSE_S = 0.05

_LAG = Gauge("tunesmith_consumer_lag", "Records of this member's partitions that it has not handled yet.", ["group", "topic"])

Record = ConsumerRecord[bytes, bytes]


class UnreadableError(Exception):
    """aiokafka cannot decode a record, such as one whose header has a name that is not UTF-8."""


class Member(ConsumerRebalanceListener):
    """Calls `settle` with every record of the topics, and commits its offset afterwards.

    `settle` returns whether it wrote anything. If not, the offset may be committed later: most events are passed over, and the
    broker stores each commit as a message. `polled` is called after each poll.

    A record that cannot be read ends the member with UnreadableError, since aiokafka loses what it has read of the same poll. The
    next member must be `careful`: for a while it polls single records, and calls `settle` with an empty record, and with what is
    wrong, in the place of one that cannot be read.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        group: str,
        topics: Collection[str],
        settle: Callable[[Record, str], Awaitable[bool]],
        polled: Callable[[], None],
        *,
        careful: bool = False,
    ) -> None:
        self._group = group
        self._topics = sorted(topics)
        self._settle = settle
        self._polled = polled
        self._careful_until = time.monotonic() + _CAREFUL_S if careful else 0.0
        self._workers: dict[TopicPartition, asyncio.Task[None]] = {}
        self._handled: dict[TopicPartition, int] = {}
        """For each partition the offset of the first record that is not handled."""
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._consumer = AIOKafkaConsumer(
            **connection(settings),
            client_id=group,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_poll_interval_ms=int(_MAX_POLL_INTERVAL_S * 1000),
        )

    async def run(self) -> None:
        """Consume until cancelled. Raises UnavailableError when the broker does not answer or has lost a topic."""
        tasks: list[asyncio.Task[None]] = []
        try:
            async with asyncio.timeout(_START_S):
                await start_whole(self._consumer.start())
            # After the start, which would wait for the group without a bound.
            self._consumer.subscribe(self._topics, listener=self)
            tasks = [asyncio.create_task(self._poll()), asyncio.create_task(self._watch())]
            done, _ = await asyncio.wait([*tasks, self._failed], return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        finally:
            await self._end(tasks)

    async def on_partitions_revoked(  # pyright: ignore[reportIncompatibleMethodOverride] - aiokafka also takes coroutines
        self, revoked: Iterable[TopicPartition]
    ) -> None:
        """End the handling of these partitions before another member may begin with them."""
        for partition in revoked:
            self._handled.pop(partition, None)
        await self._cancel([self._workers.pop(partition) for partition in revoked if partition in self._workers])

    async def on_partitions_assigned(  # pyright: ignore[reportIncompatibleMethodOverride] - as above
        self, assigned: Iterable[TopicPartition]
    ) -> None:
        """Do nothing: the next poll returns what is assigned."""

    async def _poll(self) -> None:
        while time.monotonic() < self._careful_until:
            for partition in self._consumer.assignment() - self._workers.keys():
                await self._poll_one(partition)
            self._polled()
            await asyncio.sleep(_CAREFUL_PAUSE_S)
        while True:
            try:
                found = await self._consumer.getmany(timeout_ms=int(_POLL_S * 1000), max_records=_BATCH)
            except Exception as error:
                if _is_unreadable(error):
                    raise UnreadableError(repr(error)) from error
                raise
            self._polled()
            for partition, records in found.items():
                self._begin(partition, records)

    async def _poll_one(self, partition: TopicPartition) -> None:
        try:
            found = await self._consumer.getmany(partition, timeout_ms=0, max_records=1)
        except Exception as error:
            if not _is_unreadable(error):
                raise
            offset = await self._consumer.position(partition)
            log.exception("consumer.unreadable", group=self._group, topic=partition.topic, offset=offset)
            self._consumer.seek(partition, offset + 1)
            self._careful_until = time.monotonic() + _CAREFUL_S
            self._begin(partition, [_empty(partition, offset)], repr(error))
        else:
            for polled, records in found.items():
                self._begin(polled, records)

    def _begin(self, partition: TopicPartition, records: list[Record], problem: str = "") -> None:
        self._consumer.pause(partition)
        self._handled.setdefault(partition, records[0].offset)
        if partition in self._workers:
            msg = f"{partition} was polled while its records are handled"
            raise RuntimeError(msg)
        worker = asyncio.create_task(self._work(partition, records, problem))
        self._workers[partition] = worker
        worker.add_done_callback(partial(self._has_worked, partition))

    async def _work(self, partition: TopicPartition, records: list[Record], problem: str) -> None:
        for record in records:
            has_written = await self._settle(record, problem)
            self._handled[partition] = record.offset + 1
            if not has_written and record is not records[-1]:
                continue
            try:
                # By number: the position of a consumer is past records that are still to be handled.
                await self._consumer.commit({partition: record.offset + 1})
            except KafkaError as error:
                log.info("consumer.commit_refused", group=self._group, topic=record.topic, error=repr(error))
                await asyncio.sleep(_RECOMMIT_S)
                # Mostly the partition is another member's by now. If it is ours, the record comes again, and the inbox knows it.
                if partition in self._consumer.assignment():
                    self._consumer.seek(partition, record.offset)
                return

    def _has_worked(self, partition: TopicPartition, worker: asyncio.Task[None]) -> None:
        if self._workers.get(partition) is not worker:
            return
        del self._workers[partition]
        if worker.cancelled() or worker.exception():
            # The records are not handled: only a new member reads them again.
            if not self._failed.done():
                error = None if worker.cancelled() else worker.exception()
                self._failed.set_exception(error or RuntimeError(f"the handling of {partition} was cancelled by a library"))
        elif partition in self._consumer.assignment():
            self._consumer.resume(partition)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_EVERY_S)
            self._measure()
            await check_topics(self._consumer, self._topics, _ANSWER_S)

    def _measure(self) -> None:
        lags = dict.fromkeys(self._topics, 0)
        for partition in self._consumer.assignment():
            # Known after the first poll of the partition, and so is the offset of its first record.
            end = self._consumer.highwater(partition)
            if end is not None and partition in self._handled:
                lags[partition.topic] += max(0, end - self._handled[partition])
        for topic, lag in lags.items():
            _LAG.labels(self._group, topic).set(lag)

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        workers = list(self._workers.values())
        self._workers.clear()
        # Handlers first: none may outlive its consumer.
        await self._cancel([*workers, *tasks])
        if self._failed.done():
            # Read, so that asyncio does not log it as one that was never looked at.
            self._failed.exception()
        if not await end_consumer(self._consumer, _STOP_S):
            end_process(f"the consumer of the group {self._group} cannot be ended")

    async def _cancel(self, tasks: list[asyncio.Task[None]]) -> None:
        if not tasks:
            return
        for task in tasks:
            task.cancel()
        done, late = await asyncio.wait(tasks, timeout=_CANCEL_S)
        for task in done:
            # As above.
            if not task.cancelled():
                task.exception()
        if late:
            end_process(f"{len(late)} handlers of the group {self._group} cannot be ended")


def _is_unreadable(error: Exception) -> bool:
    """Say whether a poll failed for what a record is, and not for the state of the broker or the group."""
    return isinstance(error, ValueError | CorruptRecordException | UnsupportedCodecError)


def _empty(partition: TopicPartition, offset: int) -> Record:
    return ConsumerRecord(partition.topic, partition.partition, offset, 0, 0, None, None, None, -1, -1, ())
