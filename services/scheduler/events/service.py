"""A tune's events for clients, in pages and as a stream."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlalchemy.ext.asyncio import AsyncSession

from services.scheduler.events import repository
from services.scheduler.events.schemas import EventAnswer, EventList
from services.scheduler.settings import SchedulerSettings
from shared.blobs.store import Blobs
from shared.database.notifications import Notifications
from shared.database.sessions import Database
from shared.database.tables import TuneEvent
from shared.http.streams import StreamRoom
from shared.messaging.events import TuneCancelled, TuneFailed, TuneProgressed, TuneSampled, TuneSucceeded

_FINAL = frozenset({TuneSucceeded.type, TuneFailed.type, TuneCancelled.type})
_PAGE = 100


class EventReader:
    """Reads a tune's events. A sample has a link to its image, or null once a later sample has replaced it."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def page(self, session: AsyncSession, tune_id: str, *, after: int, limit: int, progress: bool = True) -> EventList:
        """Return the events after a sequence number, oldest first; `progress` says whether with the reports of progress."""
        without = () if progress else (TuneProgressed.type,)
        found = await repository.events_of(session, tune_id, after=after, limit=limit + 1, without=without)
        shown = found[:limit]
        kept: set[str] = set()
        if any(event.type == TuneSampled.type for event in shown):
            kept = await repository.sample_keys(session, tune_id)
        return EventList(data=[self.show(event, kept) for event in shown], has_more=len(found) > limit)

    def show(self, event: TuneEvent, kept: set[str]) -> EventAnswer:
        """Return the answer for an event; `kept` has the blob keys of the samples that still exist."""
        data = event.data
        if event.type == TuneSampled.type:
            data = data | {"samples": [self._link(sample, kept) for sample in data["samples"]]}
        return EventAnswer(sequence=event.sequence, type=event.type, data=data, occurred_at=event.occurred_at)

    def _link(self, sample: dict[str, Any], kept: set[str]) -> dict[str, Any]:
        key = sample["key"]
        url = self._blobs.presign_get(key) if key in kept else None
        return {name: value for name, value in sample.items() if name != "key"} | {"url": url}


class EventStreams:
    """Sends a tune's events as server-sent events, as they happen.

    A notification wakes a stream; without one, the stream reads the database every `event_poll_s`. It holds a connection to
    the database only while it reads.
    """

    def __init__(
        self, database: Database, reader: EventReader, notifications: Notifications, settings: SchedulerSettings
    ) -> None:
        self._database = database
        self._reader = reader
        self._notifications = notifications
        self._settings = settings
        self.room = StreamRoom(settings.event_streams)
        self.open = 0
        """How many streams are being read."""

    async def frames(self, tune_id: str, *, after: int, stopping: asyncio.Event) -> AsyncIterator[bytes]:
        """Yield the events after a sequence number until the tune ends, `event_stream_s` has passed, or the process stops."""
        self.open += 1
        try:
            with self._notifications.about(tune_id) as news:
                async for frame in self._frames(tune_id, after, stopping, news):
                    yield frame
        finally:
            self.open -= 1

    async def _frames(self, tune_id: str, after: int, stopping: asyncio.Event, news: asyncio.Event) -> AsyncIterator[bytes]:
        ends_at = time.monotonic() + self._settings.event_stream_s
        sent_at = time.monotonic()
        # Sent at once, so that client and proxies see that the stream is open.
        yield KEEPALIVE_COMMENT
        while not stopping.is_set() and time.monotonic() < ends_at:
            news.clear()
            async with self._database.begin() as session:
                page = await self._reader.page(session, tune_id, after=after, limit=_PAGE)
            for event in page.data:
                yield format_sse_event(id=str(event.sequence), event=event.type, data_str=event.model_dump_json())
                after, sent_at = event.sequence, time.monotonic()
            if any(event.type in _FINAL for event in page.data):
                return
            if page.has_more:
                continue
            await self._notifications.wait(news, stopping, self._settings.event_poll_s)
            if time.monotonic() - sent_at >= self._settings.event_heartbeat_s:
                yield KEEPALIVE_COMMENT
                sent_at = time.monotonic()
