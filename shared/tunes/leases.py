"""Leases: PostgreSQL decides which trainer holds a tune, and an epoch fences the trainer's writes.

A claim raises the tune's epoch by one; every later write of that trainer carries `lease_epoch = :mine`. While a trainer is slow,
its lease may expire and another trainer may claim the tune. The epoch is then higher, and the write of the slow trainer matches
no row: it raises LeaseLostError, and the trainer stops without having changed anything. Only the database's clock decides when a
lease expires.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.blobs import rows as blob_rows
from shared.database.rounds import claiming
from shared.database.tables import Blob, Checkpoint, Sample, Tune, TuneFile
from shared.errors import ConflictError, LeaseLostError
from shared.messaging.events import (
    Event,
    TuneCheckpointed,
    TuneProgressed,
    TuneRequeued,
    TuneSample,
    TuneSampled,
    TuneStarted,
    TuneTrained,
)
from shared.states import LEASED, TuneState
from shared.tunes import queue, transitions
from shared.tunes.transitions import NO_LEASE, about, move

KEPT_CHECKPOINTS = 2


class CancelRequestedError(ConflictError):
    """The cancel of the tune was requested before its LoRA was recorded: the request wins."""

    code = "cancel_requested"

    def __init__(self, tune_id: str) -> None:
        super().__init__(f"the cancel of tune {tune_id} was requested")


@dataclass(frozen=True)
class Lease:
    """A trainer's hold on a tune. Every write under it is refused once the tune has a later epoch."""

    tune_id: str
    epoch: int


@dataclass(frozen=True)
class ClaimedFile:
    """A training image of a claimed tune."""

    position: int
    caption: str
    blob_key: str
    sha256: str
    regularization: bool = False


@dataclass(frozen=True)
class ResumePoint:
    """The last checkpoint of a claimed tune."""

    step: int
    blob_key: str
    sha256: str


@dataclass(frozen=True)
class Claim:
    """A claimed tune: the lease on it, and what the trainer needs to train it."""

    lease: Lease
    tune: Tune
    files: tuple[ClaimedFile, ...]
    resume: ResumePoint | None


async def claim(
    session: AsyncSession, *, trainer: str, token: UUID, lease_s: float, running_per_account: int, without: Sequence[str] = ()
) -> Claim | None:
    """Claim the next tune for a trainer, but none of `without`; return None when no tune may be claimed.

    The caller draws `token` before the first try: `find_claim` finds by it a claim whose COMMIT got no answer. Raises BadRowError
    for a tune that cannot be claimed.
    """
    tune_id = await queue.pick(session, running_per_account=running_per_account, without=without)
    if tune_id is None:
        return None
    # Another transaction may be changing this tune, a cancel for instance: the next poll looks again.
    locked = select(Tune).where(Tune.id == tune_id, Tune.state == TuneState.QUEUED).with_for_update(skip_locked=True)
    if (await session.scalars(locked)).one_or_none() is None:
        return None
    with claiming(tune_id):
        return await _take(session, tune_id, trainer=trainer, token=token, lease_s=lease_s)


async def _take(session: AsyncSession, tune_id: str, *, trainer: str, token: UUID, lease_s: float) -> Claim | None:
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
    """Return the claim that was made with this token, if its transaction was committed and its lease is still held."""
    tune = (await session.scalars(select(Tune).where(Tune.lease_token == token))).one_or_none()
    return await _claimed(session, tune, await _resume_point(session, tune.id)) if tune else None


async def renew(session: AsyncSession, lease: Lease, *, lease_s: float) -> bool:
    """Extend the lease, and return whether a cancel of the tune was requested. Writes no event."""
    cancel_requested = await session.scalar(
        update(Tune)
        .where(Tune.id == lease.tune_id, *_fence(lease))
        .values(lease_expires_at=func.now() + timedelta(seconds=lease_s))
        .returning(Tune.cancel_requested_at.is_not(None))
    )
    if cancel_requested is None:
        raise _lost(lease)
    return cancel_requested


async def begin_training(session: AsyncSession, lease: Lease, *, step: int) -> None:
    """Record that preparation is over and that the step after `step` begins."""
    values = {"state": TuneState.TRAINING, "step": step}
    await _fenced(session, lease, values, _progressed(lease), [Tune.state == TuneState.PREPARING])


async def progress(
    session: AsyncSession,
    lease: Lease,
    *,
    step: int,
    loss: float | None,
    steps_per_second: float | None,
    steps_run: int,
    losses: Sequence[float] = (),
) -> None:
    """Record the last finished step, the mean loss since the last report, the speed, and the steps run since then.

    `losses` are the losses of these steps, one each; those of the first steps may be missing.
    """
    values = {"step": step, "loss": loss, "steps_per_second": steps_per_second, "steps_run": Tune.steps_run + steps_run}
    await _fenced(session, lease, values, _progressed(lease, losses))


async def checkpointed(session: AsyncSession, lease: Lease, *, step: int, key: str) -> None:
    """Make this stored checkpoint the one to resume from; only the last `KEPT_CHECKPOINTS` are kept.

    The caller commits the blob's row later in this transaction.
    """
    await _fenced(session, lease, {}, lambda tune: TuneCheckpointed(**about(tune), epoch=lease.epoch, step=step))
    known = await session.scalars(select(Checkpoint).where(Checkpoint.tune_id == lease.tune_id).order_by(Checkpoint.step.desc()))
    # Drop checkpoints of earlier epochs at or after this step: this epoch resumed before them.
    earlier = 0
    for row in known.all():
        earlier += row.step < step
        if row.step >= step or earlier >= KEPT_CHECKPOINTS:
            await blob_rows.orphan(session, row.blob_key)
            await session.delete(row)
    await session.flush()
    session.add(Checkpoint(tune_id=lease.tune_id, step=step, epoch=lease.epoch, blob_key=key))
    await session.flush()


async def sampled(session: AsyncSession, lease: Lease, *, step: int, samples: Sequence[TuneSample]) -> None:
    """Publish the images that were generated after `step` steps; they replace those of earlier epochs.

    The caller has committed the blobs' rows in this transaction.
    """
    await _fenced(
        session, lease, {}, lambda tune: TuneSampled(**about(tune), epoch=lease.epoch, step=step, samples=list(samples))
    )
    # A resumed training repeats steps, and generates again what an earlier epoch generated at or after this step.
    earlier = delete(Sample).where(Sample.tune_id == lease.tune_id, Sample.step >= step).returning(Sample.blob_key)
    replaced = set(await session.scalars(earlier)) - {sample.key for sample in samples}
    if replaced:
        await blob_rows.orphan(session, *replaced)
    session.add_all(Sample(tune_id=lease.tune_id, step=step, number=sample.number, blob_key=sample.key) for sample in samples)
    await session.flush()


async def trained(session: AsyncSession, lease: Lease, *, lora_key: str, sha256: str, size_bytes: int) -> None:
    """Record the LoRA and end the lease; after this the tune cannot be cancelled.

    Raises CancelRequestedError when a cancel was requested first: one UPDATE decides between the two.
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
            epoch=lease.epoch,
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

    where = [*_fence(lease), Tune.state == TuneState.TRAINING, Tune.cancel_requested_at.is_(None)]
    if await move(session, lease.tune_id, where, values, event) is None:
        cancel_requested = select(Tune.cancel_requested_at.is_not(None)).where(Tune.id == lease.tune_id, *_fence(lease))
        if await session.scalar(cancel_requested):
            raise CancelRequestedError(lease.tune_id)
        raise _lost(lease)


async def fail(session: AsyncSession, lease: Lease, *, code: str, message: str) -> TuneState:
    """End the tune as failed, with the error's code and a message that says what to do; return its state.

    A tune whose cancel was requested ends as cancelled instead.
    """

    async def end() -> Tune | None:
        return await transitions.fail(session, lease.tune_id, _fence(lease), code=code, message=message)

    return await _end_attempt(session, lease, end)


async def cancelled(session: AsyncSession, lease: Lease) -> None:
    """End the tune as its owner requested."""
    where = [*_fence(lease), Tune.cancel_requested_at.is_not(None)]
    if await transitions.cancel(session, lease.tune_id, where) is None:
        raise _lost(lease)


async def release(session: AsyncSession, lease: Lease) -> TuneState:
    """Return the tune to the queue because its trainer stops; the attempt does not count. Return the tune's state.

    A tune whose cancel was requested ends as cancelled instead.
    """
    values = {"state": TuneState.QUEUED, "attempt": Tune.attempt - 1, **NO_LEASE}

    async def end() -> Tune | None:
        return await move(session, lease.tune_id, _fence(lease), values, _requeued("preempted"))

    return await _end_attempt(session, lease, end)


async def retry_later(session: AsyncSession, lease: Lease, *, code: str, message: str) -> TuneState:
    """Return the tune to the queue after an error that may pass; return its state.

    After the last attempt it fails with `attempts_exhausted`. A tune whose cancel was requested ends as cancelled instead.
    """

    async def end() -> Tune | None:
        where = [*_fence(lease), Tune.attempt < Tune.max_attempts]
        queued = await move(session, lease.tune_id, where, {"state": TuneState.QUEUED, **NO_LEASE}, _requeued(code))
        return queued or await transitions.fail(
            session, lease.tune_id, _fence(lease), code="attempts_exhausted", message=f"the last attempt failed: {message}"
        )

    return await _end_attempt(session, lease, end)


async def _end_attempt(session: AsyncSession, lease: Lease, end: Callable[[], Awaitable[Tune | None]]) -> TuneState:
    """End an attempt without a LoRA, and return the tune's state: cancelled if that was requested, else what `end` makes it.

    Every such end comes through here. The lock decides against a request at the same time: one that comes later finds the tune
    in the queue or ended, where the scheduler decides about it.
    """
    held = select(Tune.cancel_requested_at.is_not(None)).where(Tune.id == lease.tune_id, *_fence(lease)).with_for_update()
    cancel_requested = await session.scalar(held)
    if cancel_requested is None:
        raise _lost(lease)
    tune = await (transitions.cancel(session, lease.tune_id, _fence(lease)) if cancel_requested else end())
    if tune is None:
        raise _lost(lease)
    return TuneState(tune.state)


async def expired(session: AsyncSession, after: str, limit: int) -> list[str]:
    """Return the ids of tunes whose lease has expired, in the order of their ids and after the given one."""
    late = select(Tune.id).where(Tune.lease_expires_at < func.now(), Tune.id > after).order_by(Tune.id).limit(limit)
    return list(await session.scalars(late))


async def reap(session: AsyncSession, *only: str) -> list[str]:
    """End the leases that have expired, or those of these tunes alone: each tune is cancelled, requeued or failed.

    Returns the tunes' ids.
    """
    late = select(Tune.id, Tune.lease_epoch, Tune.lease_holder).where(Tune.lease_expires_at < func.now())
    late = late.where(Tune.id.in_(only)) if only else late
    rows = (await session.execute(late.order_by(Tune.id).with_for_update(skip_locked=True))).all()
    for row in rows:
        message = f"trainer {row.lease_holder} stopped renewing its lease"
        await retry_later(session, Lease(row.id, row.lease_epoch), code="lease_expired", message=message)
    return [row.id for row in rows]


def _fence(lease: Lease) -> list[ColumnElement[bool]]:
    return [Tune.lease_epoch == lease.epoch, Tune.state.in_(LEASED)]


def _lost(lease: Lease) -> LeaseLostError:
    return LeaseLostError(f"the lease of epoch {lease.epoch} on tune {lease.tune_id} is lost")


async def _fenced(
    session: AsyncSession,
    lease: Lease,
    values: dict[str, Any],
    event: Callable[[Tune], Event],
    where: Sequence[ColumnElement[bool]] = (),
) -> None:
    if await move(session, lease.tune_id, [*_fence(lease), *where], values, event) is None:
        raise _lost(lease)


def _progressed(lease: Lease, losses: Sequence[float] = ()) -> Callable[[Tune], Event]:
    def event(tune: Tune) -> Event:
        return TuneProgressed(
            **about(tune),
            epoch=lease.epoch,
            step=tune.step,
            steps=tune.steps,
            loss=tune.loss,
            steps_per_second=tune.steps_per_second,
            losses=list(losses),
        )

    return event


def _requeued(reason: str) -> Callable[[Tune], Event]:
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
        select(TuneFile.position, TuneFile.caption, TuneFile.blob_key, Blob.sha256, TuneFile.regularization)
        .join(Blob, Blob.key == TuneFile.blob_key)
        .where(TuneFile.tune_id == tune.id, TuneFile.verdict == "ready")
        .order_by(TuneFile.position)
    )
    return Claim(Lease(tune.id, tune.lease_epoch), tune, tuple(ClaimedFile(*row) for row in files), resume)
