"""The SQL of the image API: assets that a request names, and the rows of requests."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from services.inference.inputs import Inputs
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


async def add(session: AsyncSession, generation_id: str, account_id: UUID, affinity: str, inputs: Inputs) -> None:
    """Queue a request and publish its event."""
    generation = Generation(
        id=generation_id,
        account_id=account_id,
        engine=inputs.engine,
        affinity=affinity,
        inputs=inputs.model_dump(mode="json"),
        state="queued",
        version=1,
    )
    session.add(generation)
    await publish_requested(session, generation)


async def publish_requested(session: AsyncSession, generation: Generation) -> None:
    """Publish the event of a queued request."""
    event = ImageRequested(generation_id=generation.id, affinity=generation.affinity, version=generation.version)
    await outbox.publish(session, Context.IMAGES, event)


async def own(session: AsyncSession, account_id: UUID, generation_id: str) -> Generation | None:
    """Return a request of this account."""
    found = select(Generation).where(Generation.id == generation_id, Generation.account_id == account_id)
    return (await session.scalars(found)).one_or_none()


async def finished(session: AsyncSession, generation_id: str) -> Generation | None:
    """Return the request if it has a result or an error."""
    done = select(Generation).where(Generation.id == generation_id, Generation.finished_at.is_not(None))
    return (await session.scalars(done.execution_options(populate_existing=True))).one_or_none()


async def requeue_expired(session: AsyncSession, *, limit: int = 50) -> list[Generation]:
    """Queue the requests whose claims have expired, and return them."""
    expired = (
        select(Generation.id)
        .where(Generation.state == "running", Generation.claim_expires_at < func.now())
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    requeued = (
        update(Generation)
        .where(Generation.id.in_(expired.scalar_subquery()))
        .values(
            state="queued",
            claim_token=None,
            claim_holder=None,
            claim_expires_at=None,
            version=Generation.version + 1,
            updated_at=func.now(),
        )
        .returning(Generation)
    )
    return list(await session.scalars(requeued))


async def touch_unclaimed(session: AsyncSession, older_than_s: float, *, limit: int = 50) -> list[Generation]:
    """Return the requests that no worker has claimed for this long, and restart their clock."""
    waiting = (
        select(Generation.id)
        .where(Generation.state == "queued", Generation.updated_at < func.now() - timedelta(seconds=older_than_s))
        .order_by(Generation.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    touched = (
        update(Generation).where(Generation.id.in_(waiting.scalar_subquery())).values(updated_at=func.now()).returning(Generation)
    )
    return list(await session.scalars(touched))


async def exhausted(session: AsyncSession, attempts: int, *, limit: int = 50) -> list[Generation]:
    """Return the queued requests that have used up their attempts; workers no longer claim them."""
    tried = (
        select(Generation)
        .where(Generation.state == "queued", Generation.attempt >= attempts)
        .limit(limit)
        .with_for_update(skip_locked=True)
        # This session may hold older values of requests that it has just queued again.
        .execution_options(populate_existing=True)
    )
    return list(await session.scalars(tried))


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
        event = ImageFailed(generation_id=generation.id, version=version, code=code, message=message)
        await outbox.publish(session, Context.IMAGES, event)
