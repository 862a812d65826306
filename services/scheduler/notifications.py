"""Notifications about tunes: each wakes those that wait for the tune's events, who then read them from the database."""

import asyncio
import contextlib
from collections.abc import Generator

from shared.database.listen import Listener
from shared.settings import ServiceSettings
from shared.tunes.transitions import CHANNEL


class Notifications:
    """One listening connection for all that wait in this process. A notification may be lost, so they also poll."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._waiting: dict[str | None, set[asyncio.Event]] = {}
        self._listener = Listener(settings, CHANNEL, self._heard)
        self.listening = self._listener.listening
        """Set while notifications arrive."""

    async def run(self) -> None:
        """Listen until cancelled."""
        await self._listener.run()

    @contextlib.contextmanager
    def about(self, tune_id: str | None) -> Generator[asyncio.Event]:
        """Yield an event that is set whenever something happened to the tune; None means any tune."""
        event = asyncio.Event()
        self._waiting.setdefault(tune_id, set()).add(event)
        try:
            yield event
        finally:
            self._waiting[tune_id].discard(event)
            if not self._waiting[tune_id]:
                del self._waiting[tune_id]

    @staticmethod
    async def wait(notified: asyncio.Event, stopping: asyncio.Event, timeout_s: float) -> None:
        """Wait until there is a notification, the process is to stop, or the time is over."""
        waits = [asyncio.ensure_future(event.wait()) for event in (notified, stopping)]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _heard(self, tune_id: str | None) -> None:
        # After a connect, anything may have happened to any tune.
        woken = set(self._waiting) if tune_id is None else {tune_id, None}
        for about in woken:
            for event in self._waiting.get(about, ()):
                event.set()
