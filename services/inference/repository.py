"""The SQL of the image API: assets that a request names, and the rows of requests."""

import hashlib
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from services.inference.inputs import Inputs
from shared.database.notifications import GENERATIONS, notify
from shared.database.retention import Expired, older_than, table_of
from shared.database.tables import Account, Asset, Context, Generation
from shared.messaging import outbox
from shared.messaging.events import ImageFailed, ImageRequested

_PLATFORM_PREFIX = "octoai:"


async def find_asset(session: AsyncSession, account_id: UUID, asset_type: str, key: str) -> Asset | None:
    """Return a ready asset: one of the account by id or name, or a public one by `octoai:NAME` or id."""
    platform = select(Account.id).where(Account.is_platform).scalar_subquery()
    public = and_(Asset.account_id == platform, Asset.is_public)
    if key.startswith(_PLATFORM_PREFIX):
        match = and_(public, Asset.name == key.removeprefix(_PLATFORM_PREFIX))
    else:
        own = and_(Asset.account_id == account_id, or_(Asset.id == key, Asset.name == key))
        match = or_(own, and_(public, Asset.id == key))
    found = select(Asset).where(match, Asset.asset_type == asset_type, Asset.status == "ready")
    return (await session.scalars(found.limit(1))).one_or_none()


async def is_platforms(session: AsyncSession, account_id: UUID) -> bool:
    """Return whether this is the platform's own account."""
    return bool(await session.scalar(select(Account.is_platform).where(Account.id == account_id)))


async def queue(session: AsyncSession, generation: Generation, account_id: UUID, inputs: Inputs) -> None:
    """Queue a new request and publish its event."""
    generation.account_id = account_id
    generation.engine = inputs.engine
    generation.affinity = _affinity(inputs)
    generation.inputs = inputs.model_dump(mode="json")
    generation.state = "queued"
    generation.version = 1
    session.add(generation)
    await publish_requested(session, generation)


async def publish_requested(session: AsyncSession, generation: Generation) -> None:
    """Publish the event of a queued request."""
    event = ImageRequested(generation_id=generation.id, affinity=generation.affinity, version=generation.version)
    await outbox.publish(session, Context.IMAGES, event)


async def own(session: AsyncSession, account_id: UUID, generation_id: str) -> Generation | None:
    """Return a request of this account that was sent to `/generate`."""
    found = select(Generation).where(Generation.id == generation_id, Generation.account_id == account_id)
    found = found.where(Generation.request.is_(None))
    return (await session.scalars(found)).one_or_none()


async def finished(session: AsyncSession, generation_id: str) -> Generation | None:
    """Return the request if it has a result or an error."""
    done = select(Generation).where(Generation.id == generation_id, Generation.finished_at.is_not(None))
    return (await session.scalars(done.execution_options(populate_existing=True))).one_or_none()


async def overdue(session: AsyncSession, hint_s: float, attempts: int, *, after: str, limit: int) -> list[str]:
    """Return the ids of requests whose claim expired, that no worker claimed for `hint_s`, or that have no attempt left.

    In the order of the ids, and after the given one.
    """
    found = select(Generation.id).where(Generation.finished_at.is_(None), Generation.id > after)
    found = found.where(or_(_EXPIRED, _is_unclaimed(hint_s), _is_exhausted(attempts)))
    return list(await session.scalars(found.order_by(Generation.id).limit(limit)))


async def requeue_expired(session: AsyncSession, generation_id: str) -> Generation | None:
    """Queue a request if its claim has expired, and return it."""
    free = {"state": "queued", "claim_token": None, "claim_holder": None, "claim_expires_at": None}
    return await _change(session, generation_id, _EXPIRED, free | {"version": Generation.version + 1})


async def touch_unclaimed(session: AsyncSession, generation_id: str, older_than_s: float) -> Generation | None:
    """Restart the clock of a request that no worker has claimed for this long, and return it."""
    return await _change(session, generation_id, _is_unclaimed(older_than_s), {})


async def find_exhausted(session: AsyncSession, generation_id: str, attempts: int) -> Generation | None:
    """Lock and return a queued request that has used up its attempts; workers no longer claim it."""
    tried = select(Generation).where(Generation.id == generation_id, _is_exhausted(attempts)).with_for_update(skip_locked=True)
    # This session may hold older values of the request.
    return (await session.scalars(tried.execution_options(populate_existing=True))).one_or_none()


_EXPIRED = and_(Generation.state == "running", Generation.claim_expires_at < func.now())


def _is_unclaimed(older_than_s: float) -> ColumnElement[bool]:
    return and_(Generation.state == "queued", Generation.updated_at < func.now() - timedelta(seconds=older_than_s))


def _is_exhausted(attempts: int) -> ColumnElement[bool]:
    return and_(Generation.state == "queued", Generation.attempt >= attempts)


async def _change(
    session: AsyncSession, generation_id: str, where: ColumnElement[bool], values: dict[str, Any]
) -> Generation | None:
    found = select(Generation.id).where(Generation.id == generation_id, where).with_for_update(skip_locked=True)
    changed = update(Generation).where(Generation.id.in_(found)).values(updated_at=func.now(), **values).returning(Generation)
    return (await session.scalars(changed)).one_or_none()


async def fail(session: AsyncSession, generation: Generation, *, code: str, message: str, status: int) -> None:
    """Fail a queued request and publish the event. Does nothing if a worker has claimed the request meanwhile."""
    ended = (
        update(Generation)
        .where(Generation.id == generation.id, Generation.state == "queued")
        .values(
            state="failed",
            error={"code": code, "message": message, "status": status},
            finished_at=func.now(),
            updated_at=func.now(),
            version=Generation.version + 1,
        )
        .returning(Generation.version)
    )
    version = (await session.execute(ended)).scalar_one_or_none()
    if version is not None:
        await notify(session, GENERATIONS, generation.id)
        event = ImageFailed(generation_id=generation.id, version=version, code=code, message=message)
        await outbox.publish(session, Context.IMAGES, event)


def expired(kept_s: float) -> Expired:
    """Return the requests that finished longer ago than this, without the starred ones."""
    last = func.greatest(Generation.finished_at, Generation.unstarred_at)
    old = and_(older_than(Generation.finished_at, kept_s), older_than(last, kept_s))
    return Expired(table_of(Generation), and_(old, Generation.starred_at.is_(None)))


def _affinity(inputs: Inputs) -> str:
    """Return the partition key: requests with the same checkpoint and LoRAs go to the same worker, which has them loaded."""
    loaded = [inputs.base.sha256, *sorted(lora.sha256 for lora in inputs.loras)]
    return hashlib.sha256(" ".join(loaded).encode()).hexdigest()[:16]
