"""Background tasks that move tunes on when a trainer or an event was lost: the reaper and the reconciler."""

import time
from collections.abc import Callable

from services.scheduler import repository
from services.scheduler.service import TuneService
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.http import idempotency
from shared.messaging import inbox
from shared.telemetry import get_logger
from shared.tunes import leases

log = get_logger(__name__)


class Reaper:
    """Takes expired leases. At its start, and after it could not reach the database, it first waits for one full lease.

    While the database is unavailable no trainer can renew, so every lease looks expired; trainers that are alive get the time
    to renew.
    """

    def __init__(self, database: Database, *, lease_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._lease_s = lease_s
        self._clock = clock
        self._reachable_since: float | None = None

    async def run_once(self) -> list[str]:
        """Take the expired leases and return the ids of their tunes."""
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
    """Finds tunes whose event was lost or is late, and does what its handler would have done."""

    def __init__(self, database: Database, service: TuneService) -> None:
        self._database = database
        self._service = service

    async def run_once(self) -> None:
        """Check all tunes once, each in a transaction of its own: a tune that fails rolls back no other."""
        async with self._database.begin() as session:
            waiting = await repository.waiting_tunes(session)
            publishing = await repository.publishing_with_verdict(session)
        for tune_id in waiting:
            async with self._database.begin() as session:
                await self._service.queue_or_fail_by_verdicts(session, tune_id)
        for tune_id, lora in publishing:
            async with self._database.begin() as session:
                await self._service.end_publishing(session, tune_id, lora)
        async with self._database.begin() as session:
            await self._service.republish_queued(session)

    async def forget(self) -> None:
        """Delete the records of events that no topic can deliver again, and of answers that are not replayed any more."""
        async with self._database.begin() as session:
            await inbox.forget(session, Context.TUNES)
            await idempotency.forget(session, Context.TUNES)
