"""Sends the progress of generations as server-sent events, as it happens."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from services.inference.generations import repository
from services.inference.generations.answers import Answers
from services.inference.generations.schemas import Generation, Progress, Status
from services.inference.settings import InferenceSettings
from shared.database.notifications import Notifications
from shared.database.sessions import Database
from shared.errors import NotFoundError
from shared.http.streams import StreamRoom

LAST_ID = "end"
"""The id of the last `done` of a stream."""


class GenerationStreams:
    """Streams that a notification wakes; without one, they read the database every `event_poll_s`.

    A stream holds a connection to the database only while it reads.
    """

    def __init__(self, database: Database, answers: Answers, notifications: Notifications, settings: InferenceSettings) -> None:
        self._database = database
        self._answers = answers
        self._notifications = notifications
        self._settings = settings
        self.room = StreamRoom(settings.event_streams)

    async def frames(self, account_id: UUID, ids: Sequence[str], *, stopping: asyncio.Event) -> AsyncIterator[bytes]:
        """Return the frames until all of these have ended, `event_stream_s` has passed, or the process stops.

        Raises NotFoundError when none of them exists.
        """
        async with self._database.begin() as session:
            found = await repository.some(session, account_id, ids)
        if not found:
            msg = "ids: there is no such generation; send the ids of the account's generations"
            raise NotFoundError(msg)
        return self._frames(account_id, [row.id for row in found], stopping)

    async def _frames(self, account_id: UUID, ids: Sequence[str], stopping: asyncio.Event) -> AsyncIterator[bytes]:
        ends_at = time.monotonic() + self._settings.event_stream_s
        sent_at = time.monotonic()
        waiting = set(ids)
        seen: dict[str, Progress] = {}
        # Sent at once, so that client and proxies see that the stream is open.
        yield KEEPALIVE_COMMENT
        with self._notifications.about(*ids) as news:
            while waiting and not stopping.is_set() and time.monotonic() < ends_at:
                news.clear()
                progress, done = await self._read(account_id, waiting)
                waiting = {one.id for one in progress}
                for one in progress:
                    if seen.get(one.id) != one:
                        seen[one.id], sent_at = one, time.monotonic()
                        yield format_sse_event(event="progress", data_str=one.model_dump_json())
                for number, generation in enumerate(done):
                    is_last = not waiting and number == len(done) - 1
                    sent_at = time.monotonic()
                    yield format_sse_event(
                        event="done", data_str=generation.model_dump_json(), id=LAST_ID if is_last else generation.id
                    )
                if not waiting:
                    return
                await self._notifications.wait(news, stopping, self._settings.event_poll_s)
                if time.monotonic() - sent_at >= self._settings.event_heartbeat_s:
                    yield KEEPALIVE_COMMENT
                    sent_at = time.monotonic()

    async def _read(self, account_id: UUID, ids: set[str]) -> tuple[list[Progress], list[Generation]]:
        """Return the progress of those that have not ended, and the others; deleted ones are in neither."""
        async with self._database.begin() as session:
            rows = await repository.some(session, account_id, ids)
            ended = [row for row in rows if row.finished_at is not None]
            open_ = [row for row in rows if row.finished_at is None]
            far = await repository.progress(session, [row.id for row in open_]) if open_ else {}
            queued = any(row.state == "queued" for row in open_)
            ahead = await repository.ahead(session, account_id) if queued else {}
            done = await self._answers.show(session, account_id, ended) if ended else []
        progress: list[Progress] = []
        for row in open_:
            step, steps, preview = far.get(row.id, (0, 0, None))
            shown = f"data:image/jpeg;base64,{base64.b64encode(preview).decode()}" if preview else None
            progress.append(
                Progress(id=row.id, status=Status(row.state), step=step, steps=steps, ahead=ahead.get(row.id), preview=shown)
            )
        return progress, done
