"""The trainer: keeps one warm child, claims a tune for it, and starts over with a fresh one."""

import asyncio
import contextlib
import shutil
import socket
from collections.abc import Sequence
from uuid import uuid4

from prometheus_client import Counter

from services.trainer import repository
from services.trainer.attempt import Attempt
from services.trainer.child_process import CHILD_COMMAND, Child
from services.trainer.fence import is_unavailable
from services.trainer.settings import TrainerSettings
from shared.blobs.checkpoint_cache import CheckpointCache
from shared.blobs.store import Blobs
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
_SETTLE_S = 5.0


class TrainerService:
    """One trainer: `run` trains tunes one after the other until `drain`."""

    def __init__(
        self, database: Database, blobs: Blobs, settings: TrainerSettings, *, child_command: Sequence[str] = CHILD_COMMAND
    ) -> None:
        self.id = new_id("trainer")
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._child_command = child_command
        self._bases = CheckpointCache(settings.work_dir / "bases", blobs, settings.base_cache_bytes)
        self._device = ""
        self._attempt: Attempt | None = None
        self._draining = asyncio.Event()
        self._look_now = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def state(self) -> str:
        """`starting`, `idle`, `busy` or `draining`, as the trainer's row says."""
        if self._draining.is_set():
            return "draining"
        if self._attempt:
            return "busy"
        return "idle" if self._device else "starting"

    def hear(self, event: Event) -> None:
        """Take a hint: look into the queue at once, or whether the tune in hand was cancelled."""
        if not isinstance(event, TuneCancelRequested):
            self._look_now.set()
        elif self._attempt and self._attempt.claim.tune.id == event.tune_id:
            self._attempt.look_for_cancel()

    async def ready(self) -> None:
        """Raise until a child is warm."""
        if not self._device:
            msg = "the training process still imports its libraries"
            raise UnavailableError(msg)

    async def heartbeat(self) -> None:
        """Say in the database that this trainer is there."""
        tune_id = self._attempt.claim.tune.id if self._attempt else None
        async with self._database.begin() as session:
            await repository.seen(
                session, self.id, host=socket.gethostname(), device=self._device, state=self.state, tune_id=tune_id
            )

    async def run(self) -> None:
        """Train until drained; what a trainer that was killed left in the job folder is removed first."""
        # It is called again after it has crashed, and `drain` must not take the crash for its end.
        self._ended.clear()
        await asyncio.to_thread(shutil.rmtree, self._settings.work_dir / "jobs", ignore_errors=True)
        try:
            while not self._draining.is_set():
                child = await Child.start(self._child_command, self._settings.device)
                try:
                    await self._serve(child)
                finally:
                    await child.kill()
        finally:
            self._ended.set()

    async def drain(self) -> None:
        """Give back what is in hand, resumable, and end `run`, within a bound. Costs the tune no attempt."""
        self._draining.set()
        self._look_now.set()
        if self._attempt:
            self._attempt.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), self._settings.drain_s + _SETTLE_S)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_SETTLE_S), self._database.begin() as session:
                await repository.gone(session, self.id)

    async def _serve(self, child: Child) -> None:
        ready = asyncio.create_task(child.ready())
        draining = asyncio.create_task(self._draining.wait())
        await asyncio.wait([ready, draining], return_when=asyncio.FIRST_COMPLETED)
        draining.cancel()
        if self._draining.is_set():
            ready.cancel()
            return
        report = await ready
        self._device = report.device
        log.info("trainer.child_ready", pid=child.pid, device=report.device, seconds=round(report.seconds, 1))
        claim = await self._next_claim(child)
        if claim is None:
            return
        tune = claim.tune
        log.info("trainer.claimed", tune_id=tune.id, epoch=claim.epoch, attempt=tune.attempt, step=tune.step, steps=tune.steps)
        self._attempt = Attempt(claim, child, self._database, self._blobs, self._bases, self._settings)
        if self._draining.is_set():
            self._attempt.drain()
        try:
            outcome = await self._attempt.run()
            _ATTEMPTS.labels(outcome).inc()
        finally:
            self._attempt = None

    async def _next_claim(self, child: Child) -> Claim | None:
        """Wait for a tune and claim it; None when draining or when the child has ended meanwhile."""
        token = uuid4()
        while not self._draining.is_set() and not child.gone.done():
            self._look_now.clear()
            try:
                async with self._database.begin() as session:
                    # A COMMIT that was cut off may have claimed a tune: the token finds it.
                    claim = await leases.find_claim(session, token) or await leases.claim(
                        session,
                        trainer=self.id,
                        token=token,
                        lease_s=self._settings.lease_s,
                        running_per_account=self._settings.running_per_account,
                    )
            except Exception as error:
                if not is_unavailable(error):
                    raise
                log.warning("trainer.claim_failed", error=repr(error))
                claim = None
            if claim:
                return claim
            look = asyncio.create_task(self._look_now.wait())
            await asyncio.wait([look, child.gone], timeout=self._settings.poll_s, return_when=asyncio.FIRST_COMPLETED)
            look.cancel()
        return None
