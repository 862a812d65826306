"""PostgreSQL's notifications: what a transaction says with NOTIFY when it commits."""

import asyncio
import contextlib
from collections.abc import Callable

import asyncpg

from shared.database.sessions import tls_arguments, tls_of
from shared.settings import ServiceSettings
from shared.telemetry import get_logger

log = get_logger(__name__)

_CONNECT_S = 5
_RECONNECT_S = 1.0
_PING_EVERY_S = 10.0
_PING_S = 5.0


class Listener:
    """Listens on one channel, with a connection of its own: a pool's connections change hands after each transaction.

    `heard` is called with the payload of each notification, and with None after each connect. PostgreSQL keeps no notification
    for a listener that is not connected, so None means that some may have been missed.
    """

    def __init__(self, settings: ServiceSettings, channel: str, heard: Callable[[str | None], object]) -> None:
        self._dsn = settings.database_url.get_secret_value().replace("+asyncpg", "")
        self._tls = tls_arguments(tls_of(settings))
        self._channel = channel
        self._heard = heard
        self.listening = asyncio.Event()
        """Set while notifications arrive."""

    async def run(self) -> None:
        """Listen until cancelled; connect again whenever the connection is lost."""
        logged = False
        while True:
            try:
                await self._listen()
                logged = False
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                # One line an outage, not one an attempt.
                if not logged:
                    log.warning("listen.waiting", channel=self._channel, error=repr(error))
                logged = True
            self.listening.clear()
            await asyncio.sleep(_RECONNECT_S)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(self._dsn, timeout=_CONNECT_S, **self._tls)
        lost = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: lost.set())
            async with asyncio.timeout(_CONNECT_S):
                await connection.add_listener(
                    self._channel, lambda _connection, _process, _channel, payload: self._heard(payload)
                )
            self.listening.set()
            self._heard(None)
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(lost.wait(), _PING_EVERY_S)
                    return
                # A listener sends nothing, so only a ping finds a server that does not answer any more.
                await connection.execute("SELECT 1", timeout=_PING_S)
        finally:
            connection.terminate()
