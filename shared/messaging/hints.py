"""Hints: events that are read without a consumer group. Each listener hears all of them while it is connected.

A listener may miss some. A hint only saves waiting: listeners also poll the database.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from shared.errors import UnavailableError
from shared.messaging import cloudevents
from shared.messaging.clients import check_topics, connection, end_consumer, end_process, start_whole
from shared.messaging.events import Event
from shared.messaging.topics import ensure_topics
from shared.settings import ServiceSettings
from shared.telemetry import get_logger

log = get_logger(__name__)

_RECONNECT_S = 2.0
_MAX_RECONNECT_S = 10.0
_STOP_TIMEOUT_S = 2.0
_WATCH_EVERY_S = 2.0
_ANSWER_S = 5.0


class Hints:
    """Calls a function for every event of the given kinds that is published while it runs."""

    def __init__(self, settings: ServiceSettings, kinds: Sequence[type[Event]], heard: Callable[[Event], object]) -> None:
        self._settings = settings
        self._kinds = {kind.type: kind for kind in kinds}
        self._heard = heard
        self.listening = asyncio.Event()
        """Set while hints arrive; cleared within seconds when the broker becomes unavailable."""

    async def run(self) -> None:
        """Listen until cancelled; connect again whenever the connection is lost."""
        logged, pause_s = False, _RECONNECT_S
        while True:
            try:
                await ensure_topics(self._settings)
                await self._listen()
                logged, pause_s = False, _RECONNECT_S
            except (KafkaError, OSError, UnavailableError, TimeoutError) as error:
                # One line an outage, not one an attempt.
                if self.listening.is_set() or not logged:
                    log.warning("hints.waiting", error=repr(error))
                logged = True
                pause_s = _RECONNECT_S if self.listening.is_set() else min(pause_s * 2, _MAX_RECONNECT_S)
            self.listening.clear()
            # Random: hundreds of trainers must not open a connection at the same moment.
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))

    async def _listen(self) -> None:
        topics = sorted({kind.topic for kind in self._kinds.values()})
        consumer = AIOKafkaConsumer(
            *topics,
            **connection(self._settings),
            auto_offset_reset="latest",
            enable_auto_commit=False,
        )
        reading: asyncio.Task[None] | None = None
        try:
            await asyncio.wait_for(start_whole(consumer.start()), _STOP_TIMEOUT_S * 5)
            reading = asyncio.create_task(self._read(consumer))
            self.listening.set()
            while not reading.done():
                await asyncio.wait([reading], timeout=_WATCH_EVERY_S)
                await check_topics(consumer, topics, _ANSWER_S)
            reading.result()
        finally:
            if reading:
                reading.cancel()
            if not await end_consumer(consumer, _STOP_TIMEOUT_S):
                end_process("the consumer of hints cannot be ended")

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        async for record in consumer:
            headers = cloudevents.decode_headers(record.headers)
            if headers.get("ce_type") in self._kinds:
                # Ignore a hint that cannot be read: a consumer of the group makes it a dead letter.
                with contextlib.suppress(cloudevents.MalformedError):
                    self._heard(cloudevents.parse(headers, record.value))
