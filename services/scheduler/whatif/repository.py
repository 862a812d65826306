"""The SQL of a what-if, which only reads."""

from uuid import UUID

from sqlalchemy import exists, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.tables import AssetName, Tune

_MOST_TUNES = 20


async def name_is_taken(session: AsyncSession, account_id: UUID, name: str) -> bool:
    """Return whether an asset or a tune has the name now. When the tune is created, the unique index decides."""
    of_asset = exists().where(AssetName.account_id == account_id, AssetName.name == name)
    in_use = or_(Tune.deleted_at.is_(None), Tune.ended_at.is_(None))
    of_tune = exists().where(Tune.account_id == account_id, Tune.name == name, in_use)
    return bool(await session.scalar(select(or_(of_asset, of_tune))))


async def trained_alike(session: AsyncSession, shape_class: str) -> list[Tune]:
    """Return the newest tunes on bases of this shape that were trained under one lease, without an interruption."""
    alike = select(Tune).where(Tune.shape_class == shape_class, Tune.trained_at.is_not(None), Tune.lease_epoch == 1)
    return list(await session.scalars(alike.order_by(Tune.created_at.desc()).limit(_MOST_TUNES)))
