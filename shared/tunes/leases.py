"""Leases: who trains what, decided by PostgreSQL and fenced by an epoch.

A claim raises the tune's epoch by one; every later write of that trainer carries `lease_epoch = :mine`. When a trainer was
slow, another has claimed the tune meanwhile, the epoch has moved on, and the slow one's write hits no row: it raises
LeaseLostError, and the trainer stops without having changed anything. Expiry is in the database's time alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.blobs import rows as blob_rows
from shared.database.tables import Blob, Checkpoint, Sample, Tune, TuneFile
from shared.errors import ConflictError, LeaseLostError
from shared.messaging.events import (
    TuneCheckpointed,
    TuneProgressed,
    TuneRequeued,
    TuneSample,
    TuneSampled,
    TuneStarted,
    TuneTrained,
)
from shared.states import LEASED, TuneState
from shared.tunes import transitions
from shared.tunes.transitions import NO_LEASE, about, move

_CLAIM_LOCK = 0x636C61696D
"""Claims of all trainers queue here: two at once would both pass a limit that each has counted for itself."""
KEPT_CHECKPOINTS = 2

# FOR UPDATE is refused with GROUP BY, so the accounts' heads are picked by LATERAL first. Order: priority, then the
# account with the least running, then age.
_PICK = text("""
    WITH running AS (
        SELECT account_id, count(*) AS tunes FROM tunes WHERE state IN ('preparing', 'training') GROUP BY account_id
    )
    SELECT head.id
    FROM (SELECT DISTINCT account_id FROM tunes WHERE state = 'queued') AS waiting
    LEFT JOIN running USING (account_id)
    CROSS JOIN LATERAL (
        SELECT id, priority, queued_at FROM tunes
        WHERE account_id = waiting.account_id AND state = 'queued'
        ORDER BY priority DESC, queued_at, id LIMIT 1
    ) AS head
    WHERE coalesce(running.tunes, 0) < :running_per_account
    ORDER BY head.priority DESC, coalesce(running.tunes, 0), head.queued_at, head.id
    LIMIT 1
""")


class CancelRequestedError(ConflictError):
    """The tune was asked to stop before its LoRA was recorded: the request wins."""

    code = "cancel_requested"


@dataclass(frozen=True)
class ClaimedFile:
    """A training image of a claimed tune."""

    position: int
    caption: str
    blob_key: str
    sha256: str


@dataclass(frozen=True)
class ResumePoint:
    """The last checkpoint of a claimed tune."""

    step: int
    blob_key: str
    sha256: str


@dataclass(frozen=True)
class Claim:
    """A tune that a trainer holds under an epoch, with all that it needs to train it."""

    tune: Tune
    epoch: int
    files: tuple[ClaimedFile, ...]
    resume: ResumePoint | None


@dataclass(frozen=True)
class Renewal:
    """The answer to a renewed lease."""

    cancel_requested: bool


async def claim(session: AsyncSession, *, trainer: str, token: UUID, lease_s: float, running_per_account: int) -> Claim | None:
    """Claim the next tune for a trainer, or return None when none may be claimed.

    `token` is drawn by the caller before: a claim whose COMMIT went unanswered is looked up by it (`find_claim`).
    """
    await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _CLAIM_LOCK})
    tune_id = await session.scalar(_PICK, {"running_per_account": running_per_account})
    if tune_id is None:
        return None
    # The head may be under someone's hand just now, a cancel's for instance: leave it to the next poll.
    locked = select(Tune).where(Tune.id == tune_id, Tune.state == TuneState.QUEUED).with_for_update(skip_locked=True)
    if (await session.scalars(locked)).one_or_none() is None:
        return None
    resume = await _resume_point(session, tune_id)
    values = {
        "state": TuneState.PREPARING,
        "lease_epoch": Tune.lease_epoch + 1,
        "lease_token": token,
        "lease_holder": trainer,
        "lease_expires_at": func.now() + timedelta(seconds=lease_s),
        "attempt": Tune.attempt + 1,
        "started_at": func.coalesce(Tune.started_at, func.now()),
        "step": resume.step if resume else 0,
    }
    tune = await move(
        session,
        tune_id,
        [Tune.state == TuneState.QUEUED],
        values,
        lambda tune: TuneStarted(**about(tune), trainer=trainer, epoch=tune.lease_epoch, attempt=tune.attempt, step=tune.step),
    )
    return await _claimed(session, tune, resume) if tune else None


async def find_claim(session: AsyncSession, token: UUID) -> Claim | None:
    """Return the claim made with this token, if its transaction did commit and its lease is still held."""
    tune = (await session.scalars(select(Tune).where(Tune.lease_token == token))).one_or_none()
    return await _claimed(session, tune, await _resume_point(session, tune.id)) if tune else None


async def renew(session: AsyncSession, tune_id: str, epoch: int, *, lease_s: float) -> Renewal:
    """Extend the lease; says whether the tune was asked to stop. Not an event: nothing outside sees it."""
    row = await session.execute(
        update(Tune)
        .where(Tune.id == tune_id, *_fence(epoch))
        .values(lease_expires_at=func.now() + timedelta(seconds=lease_s))
        .returning(Tune.cancel_requested_at)
    )
    found = row.one_or_none()
    if found is None:
        raise _lost(tune_id, epoch)
    return Renewal(cancel_requested=found.cancel_requested_at is not None)


async def begin_training(session: AsyncSession, tune_id: str, epoch: int, *, step: int) -> None:
    """Note that preparation is over and the step after `step` begins."""
    await _fenced(
        session,
        tune_id,
        epoch,
        {"state": TuneState.TRAINING, "step": step},
        _progressed(epoch),
        [Tune.state == TuneState.PREPARING],
    )


async def progress(
    session: AsyncSession,
    tune_id: str,
    epoch: int,
    *,
    step: int,
    loss: float | None,
    steps_per_second: float | None,
    steps_run: int,
    losses: Sequence[float] = (),
) -> None:
    """Note the last finished step, the mean loss since the last report, the speed, and the steps run since then.

    `losses` are those of the steps since the last report, one each, as far as they are known.
    """
    values = {"step": step, "loss": loss, "steps_per_second": steps_per_second, "steps_run": Tune.steps_run + steps_run}
    await _fenced(session, tune_id, epoch, values, _progressed(epoch, losses))


async def checkpointed(session: AsyncSession, tune_id: str, epoch: int, *, step: int, key: str) -> None:
    """Make a stored state the one to resume from; older ones beyond the last few are given up.

    The caller has committed the blob's row in this transaction.
    """
    await _fenced(session, tune_id, epoch, {}, lambda tune: TuneCheckpointed(**about(tune), epoch=epoch, step=step))
    known = await session.scalars(select(Checkpoint).where(Checkpoint.tune_id == tune_id).order_by(Checkpoint.step.desc()))
    # A state of this step or a later one is of an epoch that is over: this one resumed before it.
    earlier = 0
    for row in known.all():
        earlier += row.step < step
        if row.step >= step or earlier >= KEPT_CHECKPOINTS:
            await blob_rows.orphan(session, row.blob_key)
            await session.delete(row)
    await session.flush()
    session.add(Checkpoint(tune_id=tune_id, step=step, epoch=epoch, blob_key=key))
    await session.flush()


async def sampled(session: AsyncSession, tune_id: str, epoch: int, *, step: int, samples: Sequence[TuneSample]) -> None:
    """Publish the pictures that were drawn after `step` steps; those of an epoch that is over are replaced.

    The caller has committed the blobs' rows in this transaction.
    """
    await _fenced(
        session, tune_id, epoch, {}, lambda tune: TuneSampled(**about(tune), epoch=epoch, step=step, samples=list(samples))
    )
    # A resumed training repeats steps: what an earlier epoch drew at or after this one is drawn again.
    gone = delete(Sample).where(Sample.tune_id == tune_id, Sample.step >= step).returning(Sample.blob_key)
    replaced = set(await session.scalars(gone)) - {sample.key for sample in samples}
    if replaced:
        await blob_rows.orphan(session, *replaced)
    session.add_all(Sample(tune_id=tune_id, step=step, number=sample.number, blob_key=sample.key) for sample in samples)
    await session.flush()


async def trained(session: AsyncSession, tune_id: str, epoch: int, *, lora_key: str, sha256: str, size_bytes: int) -> None:
    """Record the LoRA and give the lease back: the point of no return.

    Raises CancelRequestedError when a cancel came first: one UPDATE decides between the two.
    """
    values = {
        "state": TuneState.PUBLISHING,
        "trained_at": func.now(),
        "step": Tune.steps,
        "lora_key": lora_key,
        "lora_sha256": sha256,
        "lora_size_bytes": size_bytes,
        **NO_LEASE,
    }

    def event(tune: Tune) -> TuneTrained:
        return TuneTrained(
            **about(tune),
            epoch=epoch,
            name=tune.name,
            engine=tune.engine,
            trigger_word=tune.trigger_word,
            base_asset_id=tune.base_asset_id,
            base_sha256=tune.base_sha256,
            shape_class=tune.shape_class,
            lora_key=lora_key,
            lora_sha256=sha256,
            lora_size_bytes=size_bytes,
        )

    where = [*_fence(epoch), Tune.state == TuneState.TRAINING, Tune.cancel_requested_at.is_(None)]
    if await move(session, tune_id, where, values, event) is None:
        if (await renew(session, tune_id, epoch, lease_s=1)).cancel_requested:
            msg = f"the tune {tune_id} was asked to stop"
            raise CancelRequestedError(msg)
        raise _lost(tune_id, epoch)


async def fail(session: AsyncSession, tune_id: str, epoch: int, *, code: str, message: str) -> None:
    """End the tune for good, with the error's code and a message that says what to do."""
    if await transitions.fail(session, tune_id, _fence(epoch), code=code, message=message) is None:
        raise _lost(tune_id, epoch)


async def cancelled(session: AsyncSession, tune_id: str, epoch: int) -> None:
    """End the tune as its owner asked."""
    if await transitions.cancel(session, tune_id, [*_fence(epoch), Tune.cancel_requested_at.is_not(None)]) is None:
        raise _lost(tune_id, epoch)


async def release(session: AsyncSession, tune_id: str, epoch: int) -> None:
    """Give the tune back because the trainer has to go: the attempt does not count."""
    values = {"state": TuneState.QUEUED, "attempt": Tune.attempt - 1, **NO_LEASE}
    await _fenced(session, tune_id, epoch, values, _requeued("preempted"))


async def retry_later(session: AsyncSession, tune_id: str, epoch: int, *, code: str, message: str) -> None:
    """Give the tune back after an error that may pass; after the last attempt it fails with `attempts_exhausted`."""
    where = [*_fence(epoch), Tune.attempt < Tune.max_attempts]
    if await move(session, tune_id, where, {"state": TuneState.QUEUED, **NO_LEASE}, _requeued(code)) is None:
        await fail(session, tune_id, epoch, code="attempts_exhausted", message=f"the last attempt failed: {message}")


async def reap(session: AsyncSession, *, limit: int = 50) -> list[str]:
    """Take the leases that have expired, and return their tunes: cancelled, requeued or failed."""
    expired = (
        select(Tune.id, Tune.lease_epoch, Tune.cancel_requested_at, Tune.attempt, Tune.max_attempts, Tune.lease_holder)
        .where(Tune.lease_expires_at < func.now())
        .order_by(Tune.lease_expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = (await session.execute(expired)).all()
    for row in rows:
        if row.cancel_requested_at is not None:
            await cancelled(session, row.id, row.lease_epoch)
        else:
            message = f"trainer {row.lease_holder} went away without a word"
            await retry_later(session, row.id, row.lease_epoch, code="lease_expired", message=message)
    return [row.id for row in rows]


def _fence(epoch: int) -> list[ColumnElement[bool]]:
    return [Tune.lease_epoch == epoch, Tune.state.in_(LEASED)]


def _lost(tune_id: str, epoch: int) -> LeaseLostError:
    return LeaseLostError(f"the lease of epoch {epoch} on tune {tune_id} is gone")


async def _fenced(
    session: AsyncSession,
    tune_id: str,
    epoch: int,
    values: dict[str, Any],
    event: Any,
    where: list[ColumnElement[bool]] | None = None,
) -> None:
    if await move(session, tune_id, [*_fence(epoch), *(where or [])], values, event) is None:
        raise _lost(tune_id, epoch)


def _progressed(epoch: int, losses: Sequence[float] = ()) -> Any:
    def event(tune: Tune) -> TuneProgressed:
        return TuneProgressed(
            **about(tune),
            epoch=epoch,
            step=tune.step,
            steps=tune.steps,
            loss=tune.loss,
            steps_per_second=tune.steps_per_second,
            losses=list(losses),
        )

    return event


def _requeued(reason: str) -> Any:
    return lambda tune: TuneRequeued(**about(tune), reason=reason, attempt=tune.attempt)


async def _resume_point(session: AsyncSession, tune_id: str) -> ResumePoint | None:
    last = (
        select(Checkpoint.step, Checkpoint.blob_key, Blob.sha256)
        .join(Blob, Blob.key == Checkpoint.blob_key)
        .where(Checkpoint.tune_id == tune_id, Blob.state == "committed")
        .order_by(Checkpoint.step.desc())
        .limit(1)
    )
    row = (await session.execute(last)).one_or_none()
    return ResumePoint(row.step, row.blob_key, row.sha256 or "") if row else None


async def _claimed(session: AsyncSession, tune: Tune, resume: ResumePoint | None) -> Claim:
    files = await session.execute(
        select(TuneFile.position, TuneFile.caption, TuneFile.blob_key, Blob.sha256)
        .join(Blob, Blob.key == TuneFile.blob_key)
        .where(TuneFile.tune_id == tune.id, TuneFile.verdict == "ready")
        .order_by(TuneFile.position)
    )
    return Claim(tune, tune.lease_epoch, tuple(ClaimedFile(*row) for row in files), resume)
