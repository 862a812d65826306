"""News of tunes, by PostgreSQL's notifications: who waits for events is woken, and looks for itself."""

import asyncio
import contextlib
from collections.abc import Iterator

import asyncpg

from shared.settings import ServiceSettings
from shared.tunes.transitions import CHANNEL

_RECONNECT_S = 1.0
_CHECK_S = 1.0


class Notices:
    """One listening connection a process, for all that wait. A notification may be lost: whoever waits also polls."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._dsn = settings.database_url.get_secret_value().replace("+asyncpg", "")
        self._waiting: dict[str | None, set[asyncio.Event]] = {}
        self.listening = asyncio.Event()
        """Set while notifications arrive."""

    async def run(self) -> None:
        """Listen until cancelled, connecting again when the database was away."""
        while True:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                await self._listen()
            self.listening.clear()
            await asyncio.sleep(_RECONNECT_S)

    @contextlib.contextmanager
    def about(self, tune_id: str | None) -> Iterator[asyncio.Event]:
        """Give an event that is set whenever something happened to the tune; None means any tune."""
        event = asyncio.Event()
        self._waiting.setdefault(tune_id, set()).add(event)
        try:
            yield event
        finally:
            self._waiting[tune_id].discard(event)
            if not self._waiting[tune_id]:
                del self._waiting[tune_id]

    @staticmethod
    async def wait(news: asyncio.Event, stopping: asyncio.Event, timeout_s: float) -> None:
        """Wait until there is news, or the process is to stop, or the time is over."""
        waits = [asyncio.ensure_future(event.wait()) for event in (news, stopping)]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _listen(self) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=5)
        try:
            await connection.add_listener(CHANNEL, lambda *notice: self._heard(notice[3]))
            self.listening.set()
            # What happened while nobody listened is found by looking.
            for tune_id in list(self._waiting):
                self._heard(tune_id)
            while not connection.is_closed():
                await asyncio.sleep(_CHECK_S)
        finally:
            connection.terminate()

    def _heard(self, tune_id: str | None) -> None:
        for about in {tune_id, None}:
            for event in self._waiting.get(about, ()):
                event.set()
