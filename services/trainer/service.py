"""The trainer: starts a training process, claims a tune for it, and after that attempt starts the next process."""

import asyncio
import contextlib
import random
import shutil
import socket
import time
from collections.abc import Sequence
from uuid import UUID, uuid4

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncSession

from services.trainer import repository
from services.trainer.attempt import Attempt
from services.trainer.child_process import CHILD_COMMAND, ChildProcess
from services.trainer.fence import write_when_available
from services.trainer.settings import TrainerSettings
from shared.blobs.checkpoint_cache import CheckpointCache
from shared.blobs.store import Blobs
from shared.database.rounds import BadRowError, PassedOver
from shared.database.sessions import Database
from shared.errors import UnavailableError
from shared.ids import new_id
from shared.messaging.events import Event, TuneCancelRequested, TuneQueued, TuneRequeued
from shared.telemetry import get_logger
from shared.tunes import leases
from shared.tunes.leases import Claim

log = get_logger(__name__)

HINTS = (TuneQueued, TuneRequeued, TuneCancelRequested)
_ATTEMPTS = Counter("tunesmith_trainer_attempts", "Attempts at tunes, by how they ended.", ["outcome"])
_SPREAD_S = 0.2
_DRAIN_GRACE_S = 5.0
"""How long each step of draining may take beyond `drain_s`: the end of the attempt, and the deletion of the trainer's row."""


class TrainerService:
    """One trainer: `run` trains tunes one after the other until `drain`, or until the queue is empty if the settings say so."""

    def __init__(
        self, database: Database, blobs: Blobs, settings: TrainerSettings, *, child_command: Sequence[str] = CHILD_COMMAND
    ) -> None:
        self.id = new_id("trainer")
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._child_command = child_command
        self._bases = CheckpointCache(settings.work_dir / "bases", blobs, settings.base_cache_bytes)
        self._passed_over = PassedOver("trainer.claim", database)
        self.hints_arrive = asyncio.Event()
        """Set while hints arrive: an idle trainer then polls less and less often."""
        self._device = ""
        self._memory_bytes: int | None = None
        self._attempt: Attempt | None = None
        self._draining = asyncio.Event()
        self._poll_now = asyncio.Event()
        self._ended = asyncio.Event()
        self._idle_since: float | None = None
        self.is_done = False
        """Set when the trainer ends because no tune is left to claim."""

    @property
    def state(self) -> str:
        """The trainer's state as its row shows it: `starting`, `idle`, `busy` or `draining`."""
        if self._draining.is_set():
            return "draining"
        if self._attempt:
            return "busy"
        return "idle" if self._device else "starting"

    def hear(self, event: Event) -> None:
        """Take a hint: poll the queue at once, or check at once whether the cancel of the current tune was requested."""
        if not isinstance(event, TuneCancelRequested):
            self._poll_now.set()
        elif self._attempt and self._attempt.claim.lease.tune_id == event.tune_id:
            self._attempt.check_for_cancel()

    async def ready(self) -> None:
        """Raise UnavailableError until a training process can take a job."""
        if not self._device:
            msg = "the training process is still importing its libraries"
            raise UnavailableError(msg)

    async def heartbeat(self) -> None:
        """Record in the database that this trainer is alive, and what it does."""
        tune_id = self._attempt.claim.lease.tune_id if self._attempt else None
        async with self._database.begin() as session:
            await repository.record_heartbeat(
                session,
                self.id,
                host=socket.gethostname(),
                device=self._device,
                memory_bytes=self._memory_bytes,
                state=self.state,
                tune_id=tune_id,
            )

    async def run(self) -> None:
        """Train until drained. First removes the job folders that a killed trainer left."""
        # `Background` calls this again after a crash. `drain` must then wait for this run, not for the one that crashed.
        self._ended.clear()
        await asyncio.to_thread(shutil.rmtree, self._settings.work_dir / "jobs", ignore_errors=True)
        try:
            while not self._draining.is_set():
                child = await ChildProcess.start(self._child_command, self._settings.device)
                try:
                    await self._serve(child)
                finally:
                    await child.kill()
        finally:
            self._ended.set()

    async def drain(self) -> None:
        """Release the current tune with its checkpoint, and end `run`, within a bound. Costs the tune no attempt."""
        self._draining.set()
        self._poll_now.set()
        if self._attempt:
            self._attempt.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_s + _DRAIN_GRACE_S):
                await self._ended.wait()
        # The row is for people to look at, and is deleted after an hour anyway: no failure here may hold up the exit.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_DRAIN_GRACE_S), self._database.begin() as session:
                await repository.remove(session, self.id)

    async def _serve(self, child: ChildProcess) -> None:
        """Wait until the process is ready, claim a tune for it, and train that tune."""
        ready = asyncio.create_task(child.ready())
        draining = asyncio.create_task(self._draining.wait())
        await asyncio.wait([ready, draining], return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        if self._draining.is_set():
            ready.cancel()
            return
        report = await ready
        self._device, self._memory_bytes = report.device, report.memory_bytes
        log.info("trainer.child_ready", pid=child.pid, device=report.device, seconds=round(report.seconds, 1))
        claim = await self._next_claim(child)
        if claim is None:
            return
        tune, lease = claim.tune, claim.lease
        log.info("trainer.claimed", tune_id=tune.id, epoch=lease.epoch, attempt=tune.attempt, step=tune.step, steps=tune.steps)
        self._attempt = Attempt(claim, child, self._database, self._blobs, self._bases, self._settings)
        if self._draining.is_set():
            self._attempt.drain()
        try:
            outcome = await self._attempt.run()
            _ATTEMPTS.labels(outcome).inc()
        finally:
            self._attempt = None

    async def _next_claim(self, child: ChildProcess) -> Claim | None:
        """Wait for a tune and claim it; return None when the trainer drains or the process ends first."""
        token = uuid4()

        async def claim(session: AsyncSession) -> Claim | None:
            # Checked before each try: the database may be unavailable for long.
            return None if self._is_leaving(child) else await self._claim(session, token)

        pause_s = self._settings.poll_s
        while not self._is_leaving(child):
            self._poll_now.clear()
            try:
                if found := await write_when_available(self._database, claim):
                    self._idle_since = None
                    return found
            except BadRowError as error:
                await self._passed_over.add(error)
                continue
            if self._has_idled():
                return None
            poll = asyncio.create_task(self._poll_now.wait())
            # Random, so that trainers that started together do not poll together.
            wait_s = pause_s * random.uniform(0.8, 1)
            await asyncio.wait([poll, child.exited], timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            if poll.done():
                # Every trainer hears a hint, and one of them gets the tune.
                await asyncio.sleep(random.uniform(0, _SPREAD_S))
            is_patient = self.hints_arrive.is_set() and not poll.done()
            pause_s = min(pause_s * 2, self._settings.poll_max_s) if is_patient else self._settings.poll_s
            poll.cancel()
        return None

    def _has_idled(self) -> bool:
        """Say whether the queue has been empty for long enough to end. A trainer that can reach no database is not idle."""
        limit_s, now = self._settings.exit_when_idle_s, time.monotonic()
        if self._idle_since is None:
            self._idle_since = now
        if limit_s is None or now - self._idle_since < limit_s or self._draining.is_set():
            return False
        log.info("trainer.done", idle_s=limit_s)
        self.is_done = True
        self._draining.set()
        return True

    def _is_leaving(self, child: ChildProcess) -> bool:
        return self._draining.is_set() or child.exited.done()

    async def _claim(self, session: AsyncSession, token: UUID) -> Claim | None:
        # An earlier COMMIT without an answer may have claimed a tune: the token finds it.
        return await leases.find_claim(session, token) or await leases.claim(
            session,
            trainer=self.id,
            token=token,
            lease_s=self._settings.lease_s,
            running_per_account=self._settings.running_per_account,
            without=self._passed_over.keys(),
        )
