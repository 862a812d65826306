"""One attempt at a tune: from the claim to the LoRA, under the lease."""

import asyncio
import contextlib
import shutil
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

from sqlalchemy.ext.asyncio import AsyncSession

from services.trainer.child_process import ChildProcess
from services.trainer.engine.config import Phase
from services.trainer.engine.reports import CheckpointReport, PhaseReport, SampleReport, StepReport, Stopped, Trained
from services.trainer.errors import ChildFailedError, InputUnavailableError, StalledError
from services.trainer.fence import write_when_available
from services.trainer.inputs import prepare
from services.trainer.messages import Failed, Ready
from services.trainer.progress import Progress
from services.trainer.settings import TrainerSettings
from services.trainer.uploads import Uploads
from shared.blobs.checkpoint_cache import CheckpointCache
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.errors import LeaseLostError, TunesmithError, public_reason
from shared.failures import is_unavailable
from shared.states import TuneState
from shared.telemetry import get_logger
from shared.tunes import leases
from shared.tunes.leases import CancelRequestedError, Claim

log = get_logger(__name__)


class Outcome(StrEnum):
    """How an attempt ended."""

    TRAINED = "trained"
    RELEASED = "released"
    CANCELLED = "cancelled"
    FAILED = "failed"
    RETRIED = "retried"
    LEASE_LOST = "lease_lost"


class Attempt:
    """Drives one training process through one claimed tune. `run` ends the process in every case."""

    def __init__(
        self,
        claim: Claim,
        child: ChildProcess,
        database: Database,
        blobs: Blobs,
        bases: CheckpointCache,
        settings: TrainerSettings,
    ) -> None:
        self.claim = claim
        self.folder = settings.work_dir / "jobs" / f"{claim.lease.tune_id}-{claim.lease.epoch}"
        self._lease = claim.lease
        self._child = child
        self._database = database
        self._blobs = blobs
        self._bases = bases
        self._settings = settings
        self._prompts: list[str] = claim.tune.parameters.get("validation_prompts", [])
        self._uploads = Uploads(claim.lease, self._prompts, database, blobs)
        self._progress = Progress(claim.lease, claim.resume.step if claim.resume else 0, database, settings)
        self._phase = Phase.DOWNLOAD
        self._silence = asyncio.timeout(None)
        self._renew_now = asyncio.Event()
        self._draining = asyncio.Event()

    def check_for_cancel(self) -> None:
        """Renew the lease at once: the renewal tells whether a cancel was requested."""
        self._renew_now.set()

    def drain(self) -> None:
        """Have a checkpoint written and stored, and the lease given back; `run` then returns, within a bound."""
        self._draining.set()

    async def run(self) -> Outcome:
        """Work until the tune is trained or something ends the attempt, record how it ended, and return that."""
        work = asyncio.create_task(self._work())
        loops = (self._keep_lease(), self._progress.run(), self._store_uploads(), self._drain_when_asked())
        tasks: list[asyncio.Task[Outcome]] = [work, *(asyncio.create_task(loop) for loop in loops)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._child.kill()
            await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)
        # The work decides if it has ended; an error of a loop in the same instant does not matter any more.
        first = work if work in done else done.pop()
        outcome = await self._record(first)
        log.info("trainer.attempt_ended", tune_id=self._lease.tune_id, epoch=self._lease.epoch, outcome=outcome)
        return outcome

    async def _work(self) -> Outcome:
        """Prepare, train and publish. Each report restarts the clock of its phase; the error says which phase ran out of time."""
        try:
            async with self._silence:
                self._enter(Phase.DOWNLOAD)
                self.folder.mkdir(parents=True, exist_ok=True)
                job_file = await prepare(self.claim, self.folder, self._blobs, self._bases, self._settings)
                self._enter(Phase.LOAD)
                self._child.train(str(job_file))
                return await self._follow_child()
        except TimeoutError as error:
            if not self._silence.expired():
                raise
            await self._store_what_was_reported()
            raise self._too_slow() from error

    async def _follow_child(self) -> Outcome:
        async for message in self._child.messages():
            match message:
                case PhaseReport():
                    self._enter(message.phase)
                case StepReport():
                    self._enter(Phase.TRAIN)
                    self._progress.hear(message)
                case CheckpointReport() | SampleReport():
                    self._enter(Phase.TRAIN)
                    self._uploads.offer(message)
                case Trained():
                    self._enter(Phase.PUBLISH)
                    return await self._publish(Path(message.file))
                case Stopped():
                    self._enter(Phase.PUBLISH)
                    await self._uploads.until_stored()
                    return Outcome.RELEASED
                case Failed():
                    await self._store_what_was_reported()
                    raise ChildFailedError(message.message, code=message.code, retryable=message.retryable)
                case Ready():
                    pass
        await self._store_what_was_reported()
        raise await self._child.death()

    def _enter(self, phase: Phase) -> None:
        """Note that the attempt is alive in this phase."""
        self._phase = phase
        self._silence.reschedule(asyncio.get_running_loop().time() + self._settings.silence_s(phase))
        if phase is Phase.TRAIN:
            self._progress.in_training.set()

    def _too_slow(self) -> TunesmithError:
        bound_s = self._settings.silence_s(self._phase)
        advice = f"if that is too short, set TUNESMITH_SILENCE_{self._phase.upper()}_S higher"
        if self._phase is Phase.DOWNLOAD:
            return InputUnavailableError(f"the inputs were not downloaded within {bound_s:g} s; {advice}")
        return StalledError(f"the attempt reported nothing for {bound_s:g} s in phase {self._phase}; {advice}")

    async def _publish(self, lora: Path) -> Outcome:
        await self._progress.begun.wait()
        if self._prompts:
            # No image can be recorded after the LoRA, so images get a bounded time before it.
            await self._store_what_was_reported()
        async with self._progress.lock:
            await self._uploads.store_lora(lora, also=self._progress.add)
        return Outcome.TRAINED

    async def _store_what_was_reported(self) -> None:
        # If the process fails, dies or hangs, its last checkpoint is still stored: the next attempt resumes from it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_s):
                await self._uploads.until_stored()

    async def _keep_lease(self) -> NoReturn:
        """Renew the lease until it is lost (LeaseLostError), a cancel is requested (CancelRequestedError), or renewal fails.

        When the database was unavailable for `unreachable_limit_s`, training on is useless: raises StalledError.
        """
        limit_s = self._settings.unreachable_limit_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.renew_every_s):
                    await self._renew_now.wait()
            self._renew_now.clear()
            try:
                cancel_requested = await write_when_available(self._database, self._renew, patience_s=limit_s)
            except Exception as error:
                if is_unavailable(error):
                    msg = f"the lease could not be renewed for {limit_s:g} s, because the database was unavailable"
                    raise StalledError(msg) from error
                raise
            if cancel_requested:
                raise CancelRequestedError(self._lease.tune_id)

    async def _renew(self, session: AsyncSession) -> bool:
        return await leases.renew(session, self._lease, lease_s=self._settings.lease_s)

    async def _store_uploads(self) -> NoReturn:
        # The database takes checkpoints and images only of a tune that is in training.
        await self._progress.begun.wait()
        await self._uploads.run()

    async def _drain_when_asked(self) -> Outcome:
        await self._draining.wait()
        if self._phase is not Phase.DOWNLOAD:
            self._child.stop()
            # The work usually ends first. Waiting longer is of no use: SIGKILL follows SIGTERM, and the lease must be given
            # back before it.
            await asyncio.sleep(self._settings.drain_s)
        return Outcome.RELEASED

    async def _record(self, ended: asyncio.Task[Outcome]) -> Outcome:
        """Write how the attempt ended; LEASE_LOST when that is refused, or the database is unavailable for too long."""
        error = ended.exception()
        if error is None and ended.result() is Outcome.TRAINED:
            return Outcome.TRAINED
        if isinstance(error, LeaseLostError):
            return Outcome.LEASE_LOST
        outcome, code, message = _judge(error)
        if error:
            unexpected = None if isinstance(error, TunesmithError) else error
            log.warning("trainer.attempt_failing", tune_id=self._lease.tune_id, code=code, error=message, exc_info=unexpected)

        async def write(session: AsyncSession) -> TuneState:
            await self._progress.add(session)
            match outcome:
                case Outcome.RELEASED:
                    return await leases.release(session, self._lease)
                case Outcome.CANCELLED:
                    await leases.cancelled(session, self._lease)
                    return TuneState.CANCELLED
                case Outcome.RETRIED:
                    return await leases.retry_later(session, self._lease, code=code, message=message)
                case _:
                    return await leases.fail(session, self._lease, code=code, message=message)

        bound_s = self._settings.drain_s if self._draining.is_set() else self._settings.unreachable_limit_s
        try:
            async with asyncio.timeout(bound_s):
                state = await write_when_available(self._database, write)
        except (LeaseLostError, TimeoutError):
            # If the lease is not lost, it expires, and the scheduler requeues the tune.
            return Outcome.LEASE_LOST
        # A cancel may have been requested before the attempt ended otherwise, and the request wins.
        return Outcome.CANCELLED if state is TuneState.CANCELLED else outcome


def _judge(error: BaseException | None) -> tuple[Outcome, str, str]:
    """Return how an attempt without a LoRA ends: its outcome, and the code and text of its error."""
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
            return Outcome.RETRIED, TunesmithError.code, f"the trainer failed: {public_reason(error)}; its log has the cause"
