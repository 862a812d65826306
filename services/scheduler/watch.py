"""Background tasks that move tunes on when a trainer or an event was lost: the reaper and the reconciler."""

import time
from collections.abc import Callable, Sequence

from prometheus_client import Counter, Gauge
from sqlalchemy.ext.asyncio import AsyncSession

from services.scheduler import repository
from services.scheduler.service import TuneService
from shared.blobs import rows as blob_rows
from shared.database import retention
from shared.database.rounds import for_each_row, run_each
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.http import idempotency, rate
from shared.messaging import inbox
from shared.states import TERMINAL, TuneState
from shared.telemetry import get_logger
from shared.tunes import leases

log = get_logger(__name__)

_REPUBLISHED_AT_ONCE = 5
_EXPIRED = Counter("tunesmith_leases_expired", "Leases that were taken from trainers that did not renew them.")
_TUNES = Gauge("tunesmith_tunes", "Tunes that have not ended, by their state.", ["state"])
_OLDEST = Gauge("tunesmith_tunes_oldest_queued_seconds", "Time that the oldest tune of the queue has waited.")


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
            await self._database.ping()
            if self._reachable_since is None:
                self._reachable_since = self._clock()
            if self._clock() - self._reachable_since < self._lease_s:
                return []
            taken = await for_each_row(self._database, "reaper", leases.expired, leases.reap)
        except Exception:
            self._reachable_since = None
            raise
        _EXPIRED.inc(len(taken))
        for tune_id in taken:
            log.warning("lease.expired", tune_id=tune_id)
        return taken


class Reconciler:
    """Finds tunes whose event was lost or is late, and does what its handler would have done."""

    def __init__(self, database: Database, service: TuneService) -> None:
        self._database = database
        self._service = service

    async def run_once(self) -> None:
        """Check all tunes once, each in a transaction of its own: a tune that fails stops no other."""
        await run_each("reconciler", self._check_files, self._end_published, self._cancel_queued, self._republish_queued)

    async def _check_files(self) -> None:
        timeout_s = self._service.settings.files_timeout_s

        async def page(session: AsyncSession, after: str, limit: int) -> Sequence[str]:
            return await repository.with_verdicts(session, timeout_s, after=after, limit=limit)

        await for_each_row(self._database, "reconciler.files", page, self._service.queue_or_fail_by_verdicts)

    async def _end_published(self) -> None:
        async def end(session: AsyncSession, tune_id: str) -> None:
            if lora := await repository.lora_of_tune(session, tune_id):
                await self._service.end_publishing(session, tune_id, lora)

        await for_each_row(self._database, "reconciler.published", repository.publishing_with_verdict, end)

    async def _cancel_queued(self) -> None:
        # An attempt that ends after the request cancels its tune itself; trainers of an earlier release queued it instead.
        await for_each_row(self._database, "reconciler.cancelled", repository.queued_with_cancel, self._service.cancel_queued)

    async def _republish_queued(self) -> None:
        async def page(session: AsyncSession, after: str, limit: int) -> Sequence[str]:
            return await repository.stale_queued(session, self._service.settings.requeue_hint_s, after=after, limit=limit)

        republish = self._service.republish_queued
        await for_each_row(self._database, "reconciler.queued", page, republish, most=_REPUBLISHED_AT_ONCE)

    async def forget(self) -> None:
        """Delete what is kept for a time only.

        That is the records of events that no topic can deliver again, answers that are not replayed any more, rates of minutes
        that are past, old events of tunes, and the rows of tunes and blobs that were deleted long ago.
        """
        await retention.forget(
            self._database,
            "tunes",
            inbox.expired(Context.TUNES),
            idempotency.expired(Context.TUNES),
            rate.expired(),
            repository.expired_events(self._service.settings.tune_events_kept_s),
            repository.expired_tunes(self._service.settings.deleted_kept_s),
            blob_rows.expired(Context.TUNES, self._service.settings.deleted_kept_s),
        )


class QueueMeter:
    """Publishes how many tunes there are in each state, and how long the oldest of the queue has waited."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run_once(self) -> None:
        """Count once; every replica counts the same."""
        async with self._database.begin() as session:
            counts, oldest_s = await repository.count_unended(session)
        for state in TuneState:
            if state not in TERMINAL:
                _TUNES.labels(state).set(counts.get(state, 0))
        _OLDEST.set(oldest_s)
