"""What keeps a tune from being forgotten: expired leases are taken, and lost events are made good from the rows."""

import time
from collections.abc import Callable

from services.scheduler import repository
from services.scheduler.service import TuneService
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.messaging import inbox
from shared.telemetry import get_logger
from shared.tunes import leases

log = get_logger(__name__)


class Reaper:
    """Takes expired leases. After it could not reach the database, or at its start, it first waits one full lease.

    While the database was away no trainer could renew, so every lease looks expired: whoever is alive gets the time to.
    """

    def __init__(self, database: Database, *, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._lease_s = lease_s
        self._clock = clock
        self._reachable_since: float | None = None

    async def run_once(self) -> list[str]:
        """Take what has expired and return the tunes."""
        try:
            async with self._database.begin() as session:
                await session.connection()
                if self._reachable_since is None:
                    self._reachable_since = self._clock()
                if self._clock() - self._reachable_since < self._lease_s:
                    return []
                taken = await leases.reap(session)
        except Exception:
            self._reachable_since = None
            raise
        for tune_id in taken:
            log.warning("lease.expired", tune_id=tune_id)
        return taken


class Reconciler:
    """Finds tunes that wait for an event past its bound and does what the event would have done."""

    def __init__(self, database: Database, service: TuneService) -> None:
        self._database = database
        self._service = service

    async def run_once(self) -> None:
        """Look once; each tune in a transaction of its own, so that one that fails holds up no other."""
        async with self._database.begin() as session:
            waiting = await repository.waiting_tunes(session)
            published = await repository.published_elsewhere(session)
        for tune_id in waiting:
            async with self._database.begin() as session:
                await self._service.settle(session, tune_id)
        for tune_id, asset in published:
            async with self._database.begin() as session:
                await self._service.registered(session, tune_id, asset)
        async with self._database.begin() as session:
            await self._service.say_queued_again(session)

    async def forget_old_events(self) -> None:
        """Empty the inbox of what no topic can deliver again."""
        async with self._database.begin() as session:
            await inbox.forget(session, Context.TUNES)
