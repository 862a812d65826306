"""The worker's SQL: claiming requests, and writing their results under the claim's epoch."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from services.inference.inputs import Inputs
from shared.database.notifications import GENERATIONS, notify
from shared.database.rounds import claiming
from shared.database.tables import Context, Generation, GenerationProgress
from shared.errors import LeaseLostError
from shared.messaging import outbox
from shared.messaging.events import ImageFailed, ImageGenerated, ImageRequested

_FREE: dict[str, None] = {"claim_token": None, "claim_holder": None, "claim_expires_at": None}
_STARVED_S = 10.0
"""An older request comes before newer ones, even if this worker has the models of the newer ones loaded."""


@dataclass(frozen=True)
class Claim:
    """A request that this worker draws, under an epoch."""

    generation_id: str
    affinity: str
    epoch: int
    attempt: int
    inputs: Inputs
    waited_s: float = 0.0
    """Since the request was made."""


async def claim(
    session: AsyncSession,
    *,
    worker: str,
    token: UUID,
    claim_s: float,
    hinted: Collection[str],
    open_after_s: float,
    attempts: int,
    without: Collection[str] = (),
) -> Claim | None:
    """Claim a queued request, but none of `without`, and return the claim; None if there is none.

    Raises BadRowError for a request that cannot be claimed, such as one whose inputs another release wrote.

    Hinted requests come first, because this worker has their models loaded. Other requests, and those of which an attempt
    failed, can be claimed once they have waited for `open_after_s` seconds. `attempts` limits how often a request is tried.
    """
    waited = Generation.updated_at < func.now() - timedelta(seconds=open_after_s)
    first = or_(Generation.id.in_(hinted), Generation.created_at < func.now() - timedelta(seconds=_STARVED_S))
    waiting = (
        select(Generation.id)
        .where(
            Generation.state == "queued",
            # Only with this PostgreSQL uses the partial index.
            Generation.finished_at.is_(None),
            Generation.attempt < attempts,
            or_(waited, Generation.id.in_(hinted) & (Generation.attempt == 0)),
            Generation.id.not_in(without),
        )
        .order_by(first.desc(), Generation.created_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    generation_id = await session.scalar(waiting)
    if generation_id is None:
        return None
    claimed = (
        update(Generation)
        .where(Generation.id == generation_id)
        .values(
            state="running",
            claim_epoch=Generation.claim_epoch + 1,
            attempt=Generation.attempt + 1,
            claim_token=token,
            claim_holder=worker,
            claim_expires_at=func.now() + timedelta(seconds=claim_s),
            version=Generation.version + 1,
            updated_at=func.now(),
        )
        .returning(
            Generation.affinity,
            Generation.claim_epoch,
            Generation.attempt,
            Generation.inputs,
            func.extract("epoch", func.now() - Generation.created_at).label("waited_s"),
        )
    )
    with claiming(generation_id):
        row = (await session.execute(claimed)).one()
        return Claim(
            generation_id, row.affinity, row.claim_epoch, row.attempt, Inputs.model_validate(row.inputs), float(row.waited_s)
        )


async def count_failed_claim(session: AsyncSession, generation_id: str) -> None:
    """Count an attempt at a queued request that could not be claimed, so that it fails after the last attempt."""
    counted = update(Generation).where(Generation.id == generation_id, Generation.state == "queued")
    await session.execute(counted.values(attempt=Generation.attempt + 1, updated_at=func.now()))


async def renew(session: AsyncSession, held: Claim, *, claim_s: float) -> None:
    """Extend a claim. Raises LeaseLostError if the claim is lost."""
    await _fenced(session, held, {"claim_expires_at": func.now() + timedelta(seconds=claim_s)})


async def check(session: AsyncSession, held: Claim) -> None:
    """Raise LeaseLostError if the claim is lost."""
    mine = select(Generation.id).where(Generation.id == held.generation_id, Generation.claim_epoch == held.epoch)
    if await session.scalar(mine.where(Generation.state == "running")) is None:
        raise _lost(held)


async def report(session: AsyncSession, held: Claim, step: int, steps: int, preview: bytes | None) -> None:
    """Write how far a request is."""
    values = {"epoch": held.epoch, "step": step, "steps": steps, "preview": preview, "updated_at": func.now()}
    new = insert(GenerationProgress).values(generation_id=held.generation_id, **values)
    await session.execute(new.on_conflict_do_update(index_elements=["generation_id"], set_=values))
    await notify(session, GENERATIONS, held.generation_id)


async def succeed(session: AsyncSession, held: Claim, result: dict[str, Any]) -> None:
    """Write the result and publish the event. Raises LeaseLostError if the claim is lost."""
    version = await _fenced(session, held, {"state": "succeeded", "result": result, "finished_at": func.now(), **_FREE})
    await outbox.publish(session, Context.IMAGES, ImageGenerated(generation_id=held.generation_id, version=version))
    await notify(session, GENERATIONS, held.generation_id)


async def fail(
    session: AsyncSession, held: Claim, *, code: str, message: str, status: int, loc: tuple[str | int, ...] = ("body",)
) -> None:
    """Write the error and publish the event; `loc` names the wrong field. Raises LeaseLostError if the claim is lost."""
    error = {"code": code, "message": message, "status": status, "loc": list(loc)}
    version = await _fenced(session, held, {"state": "failed", "error": error, "finished_at": func.now(), **_FREE})
    event = ImageFailed(generation_id=held.generation_id, version=version, code=code, message=message)
    await outbox.publish(session, Context.IMAGES, event)
    await notify(session, GENERATIONS, held.generation_id)


async def give_back(session: AsyncSession, held: Claim, *, count_attempt: bool) -> None:
    """Queue the request again for another worker. Raises LeaseLostError if the claim is lost.

    After an attempt that counts, no event is published: the request waits for a while, until a worker's poll finds it.
    """
    attempt = Generation.attempt if count_attempt else Generation.attempt - 1
    version = await _fenced(session, held, {"state": "queued", "attempt": attempt, **_FREE})
    if not count_attempt:
        event = ImageRequested(generation_id=held.generation_id, affinity=held.affinity, version=version)
        await outbox.publish(session, Context.IMAGES, event)


async def _fenced(session: AsyncSession, held: Claim, values: dict[str, Any]) -> int:
    """Write values under the claim's epoch and return the row's new version. Raises LeaseLostError if the claim is lost."""
    changed = (
        update(Generation)
        .where(Generation.id == held.generation_id, Generation.claim_epoch == held.epoch, Generation.state == "running")
        .values(version=Generation.version + 1, updated_at=func.now(), **values)
        .returning(Generation.version)
    )
    version = (await session.execute(changed)).scalar_one_or_none()
    if version is None:
        raise _lost(held)
    return version


def _lost(held: Claim) -> LeaseLostError:
    return LeaseLostError(f"the claim of epoch {held.epoch} on {held.generation_id} is lost")
