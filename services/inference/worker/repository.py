"""The worker's SQL: claiming requests and writing what came of them, always under the claim's epoch."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, update
from sqlalchemy.ext.asyncio import AsyncSession

from services.inference.inputs import Inputs
from shared import outbox
from shared.errors import LeaseLostError
from shared.events import ImageFailed, ImageGenerated, ImageRequested
from shared.tables import Context, Generation

_FREE: dict[str, None] = {"claim_token": None, "claim_holder": None, "claim_expires_at": None}


@dataclass(frozen=True)
class Claim:
    """A request that this worker draws, under an epoch."""

    generation_id: str
    epoch: int
    attempt: int
    inputs: Inputs


async def claim(session: AsyncSession, generation_id: str, *, worker: str, token: UUID, claim_s: float) -> Claim | None:
    """Claim a request; None when it is finished, or another worker's. A redelivered fact so comes to nothing."""
    taken = (
        update(Generation)
        .where(Generation.id == generation_id, Generation.state == "queued")
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
        .returning(Generation.claim_epoch, Generation.attempt, Generation.inputs)
    )
    row = (await session.execute(taken)).one_or_none()
    return Claim(generation_id, row.claim_epoch, row.attempt, Inputs.model_validate(row.inputs)) if row else None


async def renew(session: AsyncSession, held: Claim, *, claim_s: float) -> None:
    """Extend a claim. Raises LeaseLostError when it is another's by now."""
    await _fenced(session, held, {"claim_expires_at": func.now() + timedelta(seconds=claim_s)})


async def succeed(session: AsyncSession, held: Claim, result: dict[str, Any]) -> None:
    """Write the result. Raises LeaseLostError."""
    version = await _fenced(session, held, {"state": "succeeded", "result": result, "finished_at": func.now(), **_FREE})
    await outbox.publish(session, Context.IMAGES, ImageGenerated(generation_id=held.generation_id, version=version))


async def fail(session: AsyncSession, held: Claim, *, code: str, message: str, status: int) -> None:
    """End the request without pictures. Raises LeaseLostError."""
    error = {"code": code, "message": message, "status": status}
    version = await _fenced(session, held, {"state": "failed", "error": error, "finished_at": func.now(), **_FREE})
    fact = ImageFailed(generation_id=held.generation_id, version=version, code=code, message=message)
    await outbox.publish(session, Context.IMAGES, fact)


async def give_back(session: AsyncSession, held: Claim, *, affinity: str, count_attempt: bool) -> None:
    """Let another worker have the request. Raises LeaseLostError.

    After an attempt that counts it is not said at once: the API says it again after a while, as often as attempts are left.
    """
    attempt = Generation.attempt if count_attempt else Generation.attempt - 1
    version = await _fenced(session, held, {"state": "queued", "attempt": attempt, **_FREE})
    if not count_attempt:
        fact = ImageRequested(generation_id=held.generation_id, affinity=affinity, version=version)
        await outbox.publish(session, Context.IMAGES, fact)


async def _fenced(session: AsyncSession, held: Claim, values: dict[str, Any]) -> int:
    changed = (
        update(Generation)
        .where(Generation.id == held.generation_id, Generation.claim_epoch == held.epoch, Generation.state == "running")
        .values(version=Generation.version + 1, updated_at=func.now(), **values)
        .returning(Generation.version)
    )
    version = (await session.execute(changed)).scalar_one_or_none()
    if version is None:
        msg = f"the claim of epoch {held.epoch} on {held.generation_id} is gone"
        raise LeaseLostError(msg)
    return version
