"""The worker's SQL: claiming requests, and writing their results under the claim's epoch."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text, update
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
_CLAIM_LOCK = 0x696D61676573
"""The advisory lock that makes claims run one after the other: each must count the requests that the others have claimed."""
_STARVED_S = 10.0
"""A request that waits for this long comes before others of its account, even if this worker has the models of those loaded."""

# The first request of each account, and of these the one to claim: the account with the fewest running requests, then a request
# that this worker was announced or that has waited for long, then the account that this worker has served least recently.
# PostgreSQL uses the indexes of unfinished requests only where the query says that they are.
_PICK = text("""
    WITH running AS (
        SELECT account_id, count(*) AS requests FROM generations
        WHERE state = 'running' AND finished_at IS NULL GROUP BY account_id
    )
    SELECT head.id
    FROM (SELECT DISTINCT account_id FROM generations WHERE state = 'queued' AND finished_at IS NULL) AS waiting
    LEFT JOIN running USING (account_id)
    CROSS JOIN LATERAL (
        SELECT id, created_at, (id = ANY(:hinted) OR created_at < now() - make_interval(secs => :starved_s)) AS is_near
        FROM generations
        WHERE account_id = waiting.account_id AND state = 'queued' AND finished_at IS NULL
            AND attempt < :attempts AND id <> ALL(:without)
            AND (id = ANY(:hinted) AND attempt = 0 OR updated_at < now() - make_interval(secs => :open_after_s))
            AND (id <> ALL(:failed) OR updated_at < now() - make_interval(secs => :failed_after_s))
        ORDER BY is_near DESC, created_at, id LIMIT 1
    ) AS head
    ORDER BY coalesce(running.requests, 0), head.is_near DESC,
        array_position(CAST(:served AS uuid[]), waiting.account_id) NULLS FIRST, head.created_at, head.id
    LIMIT 1
""")


@dataclass(frozen=True)
class Claim:
    """A request that this worker draws, under an epoch."""

    generation_id: str
    account_id: UUID
    affinity: str
    epoch: int
    attempt: int
    inputs: Inputs
    waited_s: float = 0.0
    """Since the request was made."""


@dataclass(frozen=True)
class Choice:
    """What a worker knows that decides which request it claims."""

    hinted: Collection[str] = ()
    """Requests that were announced to this worker: it has their models loaded, or should load them."""
    open_after_s: float = 1.0
    """How long other requests, and those of which an attempt failed, must have waited, in seconds."""
    attempts: int = 3
    """How often a request is tried."""
    without: Collection[str] = ()
    """Requests that are left out."""
    failed: Collection[str] = ()
    """Requests that failed at this worker: another worker should try them, so this one waits for `failed_after_s` seconds."""
    failed_after_s: float = 5.0
    served: Sequence[UUID] = field(default_factory=list)
    """The accounts that this worker has served, the latest last."""


async def claim(session: AsyncSession, *, worker: str, token: UUID, claim_s: float, choice: Choice) -> Claim | None:
    """Claim a queued request and return the claim; None if there is none.

    Raises BadRowError for a request that cannot be claimed, such as one whose inputs another release wrote.
    """
    generation_id = await pick(session, choice)
    if generation_id is None:
        return None
    # Another transaction may be changing the request: the next poll looks again.
    locked = select(Generation.id).where(Generation.id == generation_id, Generation.state == "queued")
    if await session.scalar(locked.with_for_update(skip_locked=True)) is None:
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
            Generation.account_id,
            Generation.affinity,
            Generation.claim_epoch,
            Generation.attempt,
            Generation.inputs,
            func.extract("epoch", func.now() - Generation.created_at).label("waited_s"),
        )
    )
    with claiming(generation_id):
        row = (await session.execute(claimed)).one()
        inputs = Inputs.model_validate(row.inputs)
        waited_s = float(row.waited_s)
        return Claim(generation_id, row.account_id, row.affinity, row.claim_epoch, row.attempt, inputs, waited_s)


async def pick(session: AsyncSession, choice: Choice) -> str | None:
    """Return the id of the request to claim next, or None. The transaction then holds the lock of claims until it ends."""
    values = {
        "hinted": list(choice.hinted),
        "starved_s": _STARVED_S,
        "open_after_s": choice.open_after_s,
        "attempts": choice.attempts,
        "without": list(choice.without),
        "failed": list(choice.failed),
        "failed_after_s": choice.failed_after_s,
        "served": list(choice.served),
    }
    # Idle workers poll: they must not wait for each other's lock only to find that there is nothing to claim.
    if await session.scalar(_PICK, values) is None:
        return None
    await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _CLAIM_LOCK})
    return await session.scalar(_PICK, values)


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
