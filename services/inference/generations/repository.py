"""The SQL of generations: the history, what they refer to, and their changes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.notifications import GENERATIONS, notify
from shared.database.retention import Expired, older_than, table_of
from shared.database.tables import Asset, Blob, Context, Generation, GenerationProgress
from shared.messaging import outbox
from shared.messaging.events import ImageFailed

_PROGRESS_KEPT_S = 3600.0


@dataclass(frozen=True)
class HistoryFilter:
    """Which generations a page of the history has; None lets all pass."""

    before: str | None = None
    words: str | None = None
    lora: str | None = None
    checkpoint: str | None = None
    starred: bool | None = None
    group: str | None = None


def _of(account_id: UUID) -> Select[Generation]:
    return select(Generation).where(Generation.account_id == account_id, Generation.request.is_not(None))


async def page(session: AsyncSession, account_id: UUID, wanted: HistoryFilter, limit: int) -> Sequence[Generation]:
    """Return the newest generations that pass the filter."""
    found = _of(account_id)
    if wanted.before is not None:
        found = found.where(Generation.id < wanted.before)
    if wanted.words:
        prompt = Generation.request["prompt"].as_string()
        found = found.where(prompt.icontains(wanted.words, autoescape=True))
    if wanted.lora is not None:
        found = found.where(or_(*(Generation.inputs.contains({"loras": [{key: wanted.lora}]}) for key in ("name", "asset_id"))))
    if wanted.checkpoint is not None:
        found = found.where(
            or_(*(Generation.inputs.contains({"base": {key: wanted.checkpoint}}) for key in ("name", "asset_id")))
        )
    if wanted.starred is not None:
        found = found.where(Generation.starred_at.is_not(None) if wanted.starred else Generation.starred_at.is_(None))
    if wanted.group is not None:
        found = found.where(Generation.group_id == wanted.group)
    return (await session.scalars(found.order_by(Generation.id.desc()).limit(limit))).all()


async def some(session: AsyncSession, account_id: UUID, ids: Collection[str]) -> Sequence[Generation]:
    """Return those of these generations that are the account's, in the order of their ids."""
    found = _of(account_id).where(Generation.id.in_(ids)).order_by(Generation.id)
    return (await session.scalars(found.execution_options(populate_existing=True))).all()


async def ids_of_group(session: AsyncSession, account_id: UUID, group_id: str) -> list[str]:
    """Return the ids of a group's generations, in the order of the variants."""
    found = select(Generation.id).where(Generation.account_id == account_id, Generation.group_id == group_id)
    return list(await session.scalars(found.order_by(Generation.position)))


async def lock(session: AsyncSession, account_id: UUID, generation_id: str) -> Generation | None:
    """Return a generation and lock it until the transaction ends."""
    found = _of(account_id).where(Generation.id == generation_id).with_for_update()
    return (await session.scalars(found.execution_options(populate_existing=True))).one_or_none()


async def cancel(session: AsyncSession, generation: Generation) -> None:
    """End a locked generation that has not ended. Its worker loses the claim, and stops between two steps."""
    ended = (
        update(Generation)
        .where(Generation.id == generation.id)
        .values(
            state="cancelled",
            claim_token=None,
            claim_holder=None,
            claim_expires_at=None,
            finished_at=func.now(),
            updated_at=func.now(),
            version=Generation.version + 1,
        )
    )
    version = (await session.execute(ended.returning(Generation.version))).scalar_one()
    event = ImageFailed(generation_id=generation.id, version=version, code="cancelled", message="the request was cancelled")
    await outbox.publish(session, Context.IMAGES, event)
    await notify(session, GENERATIONS, generation.id)
    await session.refresh(generation)


async def set_star(session: AsyncSession, generation: Generation, *, starred: bool) -> None:
    """Give a locked generation a star, or take it away."""
    values: dict[str, Any] = {"starred_at": func.now()} if starred else {"starred_at": None, "unstarred_at": func.now()}
    await session.execute(update(Generation).where(Generation.id == generation.id).values(**values))
    await session.refresh(generation)


async def remove(session: AsyncSession, generation: Generation) -> None:
    """Delete a locked generation. A worker that draws it loses its claim."""
    await session.execute(delete(GenerationProgress).where(GenerationProgress.generation_id == generation.id))
    await session.execute(delete(Generation).where(Generation.id == generation.id))
    await notify(session, GENERATIONS, generation.id)


async def ahead(session: AsyncSession, account_id: UUID) -> dict[str, int]:
    """Return how many of the account's waiting requests come before each of them."""
    place = func.row_number().over(order_by=(Generation.created_at, Generation.id)) - 1
    # The partial index of unfinished requests is used only where the query says so.
    waiting = and_(Generation.state == "queued", Generation.finished_at.is_(None))
    found = await session.execute(select(Generation.id, place).where(Generation.account_id == account_id, waiting))
    return {row[0]: row[1] for row in found}


async def progress(session: AsyncSession, ids: Collection[str]) -> dict[str, tuple[int, int, bytes | None]]:
    """Return how far these are, by id: step, steps and preview. One that a worker began again has only what that worker did."""
    seen = GenerationProgress
    found = select(seen.generation_id, seen.step, seen.steps, seen.preview).join(Generation, Generation.id == seen.generation_id)
    found = found.where(seen.generation_id.in_(ids), Generation.state == "running", Generation.claim_epoch == seen.epoch)
    return {row[0]: (row[1], row[2], row[3]) for row in await session.execute(found)}


async def existing_assets(session: AsyncSession, ids: Collection[str]) -> set[str]:
    """Return those of the assets that can still be used."""
    return set(await session.scalars(select(Asset.id).where(Asset.id.in_(ids), Asset.status == "ready")))


async def existing_blobs(session: AsyncSession, keys: Collection[str]) -> set[str]:
    """Return those of the objects that are not deleted."""
    return set(await session.scalars(select(Blob.key).where(Blob.key.in_(keys), _IS_THERE)))


_IS_THERE: ColumnElement[bool] = Blob.state.in_(["committed", "orphaned"])


def expired_progress() -> Expired:
    """Return the progress of requests that no worker draws any more."""
    return Expired(table_of(GenerationProgress), older_than(GenerationProgress.updated_at, _PROGRESS_KEPT_S))
