"""How far an attempt has come: what its training process reports, and how much of that the tune's row counts."""

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import NoReturn

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncSession

from services.trainer.engine.reports import StepReport
from services.trainer.fence import write_when_available
from services.trainer.settings import TrainerSettings
from shared.database.sessions import Database
from shared.errors import LeaseLostError
from shared.tunes import leases
from shared.tunes.leases import Lease

_MAX_LOSSES = 2000
_STEPS = Counter("tunesmith_trainer_steps", "Training steps that this trainer has computed.")


class Progress:
    """Takes the step reports of an attempt, and writes them to its tune from time to time."""

    def __init__(self, lease: Lease, first_step: int, database: Database, settings: TrainerSettings) -> None:
        self._lease = lease
        self._first_step = first_step
        self._database = database
        self._settings = settings
        self._latest: StepReport | None = None
        self._steps_counted = 0
        # One event carries them all, so they are bounded: the database may be unavailable for long.
        self._losses: deque[float] = deque(maxlen=_MAX_LOSSES)
        self.in_training = asyncio.Event()
        """Set by the attempt once its process trains."""
        self.begun = asyncio.Event()
        """Set once the tune's row says that it is in training."""
        self.lock = asyncio.Lock()
        """Held by a transaction that calls `add`, until it is committed: two at once would both count the same steps."""

    def hear(self, report: StepReport) -> None:
        """Take a step report of the training process."""
        _STEPS.inc(max(0, report.steps_run - (self._latest.steps_run if self._latest else 0)))
        self._latest = report
        self._losses.extend(report.losses)

    async def run(self) -> NoReturn:
        """Move the tune to training once its process trains, then write progress until cancelled. Raises LeaseLostError."""
        await self.in_training.wait()
        await self._begin()
        self.begun.set()
        while True:
            await asyncio.sleep(self._settings.progress_every_s)
            async with self.lock:
                self._count(await write_when_available(self._database, self.add))

    async def add(self, session: AsyncSession) -> int:
        """Write the latest report, if it is not counted yet; return how many steps of this attempt are counted then."""
        latest = self._latest
        if latest is None or not self.begun.is_set() or latest.steps_run == self._steps_counted:
            return self._steps_counted
        await leases.progress(
            session,
            self._lease,
            step=latest.step,
            loss=latest.loss,
            steps_per_second=latest.steps_per_second,
            steps_run=latest.steps_run - self._steps_counted,
            losses=list(self._losses),
        )
        return latest.steps_run

    async def _begin(self) -> None:
        def begin(session: AsyncSession) -> Awaitable[None]:
            return leases.begin_training(session, self._lease, step=self._first_step)

        def renew(session: AsyncSession) -> Awaitable[bool]:
            return leases.renew(session, self._lease, lease_s=self._settings.lease_s)

        try:
            await write_when_available(self._database, begin)
        except LeaseLostError:
            # A COMMIT without an answer may have moved the tune to training, and the repeated write is refused. If so, the
            # lease is still held and can be renewed.
            await write_when_available(self._database, renew)

    def _count(self, steps_run: int) -> None:
        """Take these steps as written, and drop their losses; later steps may have been reported meanwhile."""
        self._steps_counted = steps_run
        unwritten = self._latest.steps_run - steps_run if self._latest else 0
        while len(self._losses) > unwritten:
            self._losses.popleft()
