"""Notifications about things by their ids: each wakes those that wait for the thing, who then read it from the database."""

import asyncio
import contextlib
from collections.abc import Generator

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.listen import Listener
from shared.settings import ServiceSettings

GENERATIONS = "generations"
"""The channel of what happens to requests for images."""


async def notify(session: AsyncSession, channel: str, about: str) -> None:
    """Wake those that wait for the thing, once the transaction commits."""
    await session.execute(select(func.pg_notify(channel, about)))


class Notifications:
    """One listening connection for all that wait in this process. A notification may be lost, so they also poll."""

    def __init__(self, settings: ServiceSettings, channel: str) -> None:
        self._waiting: dict[str | None, set[asyncio.Event]] = {}
        self._listener = Listener(settings, channel, self._heard)
        self.listening = self._listener.listening
        """Set while notifications arrive."""

    async def run(self) -> None:
        """Listen until cancelled."""
        await self._listener.run()

    @contextlib.contextmanager
    def about(self, *ids: str | None) -> Generator[asyncio.Event]:
        """Yield an event that is set whenever something happened to one of these; None means any of them all."""
        event = asyncio.Event()
        for about in ids:
            self._waiting.setdefault(about, set()).add(event)
        try:
            yield event
        finally:
            for about in set(ids):
                self._waiting[about].discard(event)
                if not self._waiting[about]:
                    del self._waiting[about]

    @staticmethod
    async def wait(notified: asyncio.Event, stopping: asyncio.Event, timeout_s: float) -> None:
        """Wait until there is a notification, the process is to stop, or the time is over."""
        waits = [asyncio.ensure_future(event.wait()) for event in (notified, stopping)]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _heard(self, about: str | None) -> None:
        # After a connect, anything may have happened to anything.
        woken = set(self._waiting) if about is None else {about, None}
        for one in woken:
            for event in self._waiting.get(one, ()):
                event.set()
