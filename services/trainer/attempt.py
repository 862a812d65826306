"""One attempt at a tune: from the claim to the LoRA, under the lease."""

import asyncio
import contextlib
import shutil
import time
from collections import deque
from collections.abc import Awaitable
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

from sqlalchemy.ext.asyncio import AsyncSession

from services.trainer.child_process import Child
from services.trainer.engine.config import Phase
from services.trainer.errors import ChildFailedError, InputUnavailableError, StalledError
from services.trainer.fence import is_unavailable, patiently
from services.trainer.inputs import prepare
from services.trainer.messages import CheckpointReport, Failed, PhaseReport, Ready, SampleReport, StepReport, Stopped, Trained
from services.trainer.settings import TrainerSettings
from services.trainer.uploads import Uploads
from shared.blobs.checkpoint_cache import CheckpointCache
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.errors import LeaseLostError, TunesmithError
from shared.telemetry import get_logger
from shared.tunes import leases
from shared.tunes.leases import CancelRequestedError, Claim, Renewal

log = get_logger(__name__)

_RENEW_RETRY_S = 1.0
_MOST_LOSSES = 2000


class Outcome(StrEnum):
    """How an attempt ended."""

    TRAINED = "trained"
    RELEASED = "released"
    CANCELLED = "cancelled"
    FAILED = "failed"
    RETRIED = "retried"
    LEASE_LOST = "lease_lost"


class Attempt:
    """Drives one child through one claimed tune. `run` ends the child in every case."""

    def __init__(
        self, claim: Claim, child: Child, database: Database, blobs: Blobs, bases: CheckpointCache, settings: TrainerSettings
    ) -> None:
        self.claim = claim
        self._tune_id = claim.tune.id
        self._epoch = claim.epoch
        self._child = child
        self._database = database
        self._blobs = blobs
        self._bases = bases
        self._settings = settings
        self._folder = settings.work_dir / "jobs" / f"{self._tune_id}-{self._epoch}"
        self._prompts: list[str] = claim.tune.parameters.get("validation_prompts", [])
        self._uploads = Uploads(self._tune_id, self._epoch, database, blobs, self._prompts)
        self._phase = Phase.DOWNLOAD
        self._heard_at = time.monotonic()
        self._latest: StepReport | None = None
        self._steps_counted = 0
        # No more than an event may hold, should the database be away for long.
        self._losses: deque[float] = deque(maxlen=_MOST_LOSSES)
        # Two that write at once would both count the same steps.
        self._writing_progress = asyncio.Lock()
        self._renew_now = asyncio.Event()
        self._draining = asyncio.Event()
        self._in_training = asyncio.Event()
        self._begun = asyncio.Event()

    def look_for_cancel(self) -> None:
        """Renew at once, which tells whether a cancel was requested."""
        self._renew_now.set()

    def drain(self) -> None:
        """Have the child write a checkpoint, store it and give the lease back; `run` returns then, within a bound."""
        self._draining.set()

    async def run(self) -> Outcome:
        """Train until the tune is trained, or something ends the attempt; record how it ended, under the fence."""
        loops = (self._keep_lease(), self._write_progress(), self._uploads_once_begun(), self._drain_when_asked())
        work = asyncio.create_task(self._work())
        tasks: list[asyncio.Task[Outcome]] = [work, *(asyncio.create_task(loop) for loop in loops)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._child.kill()
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
        # When the work ended, it decides; what failed beside it in the same instant no longer matters.
        first = work if work in done else done.pop()
        outcome = await self._record(first)
        log.info("trainer.attempt_ended", tune_id=self._tune_id, epoch=self._epoch, outcome=outcome)
        return outcome

    async def _work(self) -> Outcome:
        self._folder.mkdir(parents=True, exist_ok=True)
        bound_s = self._settings.silence_s(Phase.DOWNLOAD)
        try:
            async with asyncio.timeout(bound_s):
                job_file = await prepare(self.claim, self._folder, self._blobs, self._bases, self._settings)
        except TimeoutError as error:
            msg = f"the inputs could not be downloaded within {bound_s:g} s"
            raise InputUnavailableError(msg) from error
        self._hear(Phase.LOAD)
        self._child.train(str(job_file))
        async for report in self._child.reports():
            match report:
                case PhaseReport():
                    self._hear(report.phase)
                case StepReport():
                    self._hear(Phase.TRAIN)
                    self._latest = report
                    self._losses.extend(report.losses)
                case CheckpointReport() | SampleReport():
                    self._hear(Phase.TRAIN)
                    self._uploads.offer(report)
                case Failed():
                    await self._save_what_is_whole()
                    raise ChildFailedError(report.message, code=report.code, retryable=report.retryable)
                case Trained():
                    self._hear(Phase.PUBLISH)
                    return await self._publish(Path(report.file))
                case Stopped():
                    self._hear(Phase.PUBLISH)
                    await self._uploads.stored()
                    return Outcome.RELEASED
                case Ready():
                    pass
        await self._save_what_is_whole()
        raise await self._child.died()

    async def _publish(self, lora: Path) -> Outcome:
        await self._begun.wait()
        if self._prompts:
            # Once the LoRA is recorded no picture can be; but none is worth waiting long for.
            await self._save_what_is_whole()
        async with self._writing_progress:
            await self._uploads.store_lora(lora, also=self._add_progress)
        return Outcome.TRAINED

    async def _save_what_is_whole(self) -> None:
        # When the child is done for, the last checkpoint that it reported saves the next attempt the steps up to it.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._uploads.stored(), self._settings.drain_s)

    def _hear(self, phase: Phase) -> None:
        self._phase = phase
        self._heard_at = time.monotonic()
        if phase is Phase.TRAIN:
            self._in_training.set()

    async def _keep_lease(self) -> NoReturn:
        """Renew while the child shows that it works, and notice a cancel.

        Raises CancelRequestedError, LeaseLostError, or StalledError: for a hung child, and when the lease could not be
        renewed for so long that going on is no use.
        """
        renewed_at, wait_s = time.monotonic(), self._settings.renew_every_s
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._renew_now.wait(), wait_s)
            self._renew_now.clear()
            bound_s = self._settings.silence_s(self._phase)
            if time.monotonic() - self._heard_at > bound_s:
                msg = f"the training process reported nothing for {bound_s:g} s in phase {self._phase}"
                raise StalledError(msg)
            try:
                async with self._database.begin() as session:
                    renewal = await self._renew(session)
            except Exception as error:
                if not is_unavailable(error):
                    raise
                log.warning("trainer.renewal_failed", tune_id=self._tune_id, error=repr(error))
                if time.monotonic() - renewed_at > self._settings.unreachable_limit_s:
                    msg = f"the lease could not be renewed for {self._settings.unreachable_limit_s:g} s"
                    raise StalledError(msg) from error
                wait_s = min(_RENEW_RETRY_S, self._settings.renew_every_s)
                continue
            renewed_at, wait_s = time.monotonic(), self._settings.renew_every_s
            if renewal.cancel_requested:
                msg = f"the tune {self._tune_id} was asked to stop"
                raise CancelRequestedError(msg)

    async def _write_progress(self) -> NoReturn:
        await self._in_training.wait()
        step = self.claim.resume.step if self.claim.resume else 0
        try:
            await patiently(self._database, lambda session: leases.begin_training(session, self._tune_id, self._epoch, step=step))
        except LeaseLostError:
            # Said a second time after a COMMIT that was cut off, it finds the tune in training already.
            await patiently(self._database, self._renew)
        self._begun.set()
        while True:
            await asyncio.sleep(self._settings.progress_every_s)
            try:
                async with self._writing_progress:
                    async with self._database.begin() as session:
                        counted = await self._add_progress(session)
                    self._count(counted)
            except Exception as error:
                if not is_unavailable(error):
                    raise
                log.warning("trainer.progress_lost", tune_id=self._tune_id, error=repr(error))

    async def _add_progress(self, session: AsyncSession) -> int:
        """Write what the child reported last, if that is news; returns the steps of this attempt that are counted then."""
        latest = self._latest
        if latest is None or not self._begun.is_set() or latest.steps_run == self._steps_counted:
            return self._steps_counted
        await leases.progress(
            session,
            self._tune_id,
            self._epoch,
            step=latest.step,
            loss=latest.loss,
            steps_per_second=latest.steps_per_second,
            steps_run=latest.steps_run - self._steps_counted,
            losses=list(self._losses),
        )
        return latest.steps_run

    def _count(self, steps_run: int) -> None:
        """Take steps as written, and with them their losses; what the child reported meanwhile is still to be written."""
        self._steps_counted = steps_run
        unwritten = self._latest.steps_run - steps_run if self._latest else 0
        while len(self._losses) > unwritten:
            self._losses.popleft()

    async def _uploads_once_begun(self) -> NoReturn:
        # A checkpoint belongs to a tune in training, which it is once that is written.
        await self._begun.wait()
        await self._uploads.run()

    async def _drain_when_asked(self) -> Outcome:
        await self._draining.wait()
        if self._phase is not Phase.DOWNLOAD:
            self._child.stop()
            # Longer than this, and whoever sent SIGTERM would kill us before the lease is given back.
            await asyncio.sleep(self._settings.drain_s)
        return Outcome.RELEASED

    def _renew(self, session: AsyncSession) -> Awaitable[Renewal]:
        return leases.renew(session, self._tune_id, self._epoch, lease_s=self._settings.lease_s)

    async def _record(self, ended: asyncio.Task[Outcome]) -> Outcome:
        """Write how the attempt ended; LEASE_LOST when it may not be written, or cannot within the bound."""
        error = ended.exception()
        if error is None and ended.result() is Outcome.TRAINED:
            return Outcome.TRAINED
        if isinstance(error, LeaseLostError):
            return Outcome.LEASE_LOST
        outcome, code, message = _judge(error)
        if error:
            unexpected = None if isinstance(error, TunesmithError) else error
            log.warning("trainer.attempt_failing", tune_id=self._tune_id, code=code, error=message, exc_info=unexpected)

        async def write(session: AsyncSession) -> None:
            await self._add_progress(session)
            match outcome:
                case Outcome.RELEASED:
                    await leases.release(session, self._tune_id, self._epoch)
                case Outcome.CANCELLED:
                    await leases.cancelled(session, self._tune_id, self._epoch)
                case Outcome.RETRIED:
                    await leases.retry_later(session, self._tune_id, self._epoch, code=code, message=message)
                case _:
                    await leases.fail(session, self._tune_id, self._epoch, code=code, message=message)

        bound_s = self._settings.drain_s if self._draining.is_set() else self._settings.unreachable_limit_s
        try:
            async with asyncio.timeout(bound_s):
                await patiently(self._database, write)
        except (LeaseLostError, TimeoutError):
            # The lease is gone, or will expire by itself.
            return Outcome.LEASE_LOST
        return outcome


def _judge(error: BaseException | None) -> tuple[Outcome, str, str]:
    """Decide how an attempt ends that did not end with a LoRA: the outcome, the error's code and its text."""
    match error:
        case None:
            return Outcome.RELEASED, "", ""
        case CancelRequestedError():
            return Outcome.CANCELLED, error.code, error.message
        case ChildFailedError():
            outcome = Outcome.RETRIED if error.child_retryable else Outcome.FAILED
            return outcome, error.child_code, error.message
        case TunesmithError():
            return Outcome.RETRIED if error.retryable else Outcome.FAILED, error.code, error.message
        case _:
            return Outcome.RETRIED, TunesmithError.code, f"the trainer failed with {error!r}; its log has more"
