"""The SQL of a tune's events and of the images drawn during training."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.tables import Sample, TuneEvent


async def events_of(
    session: AsyncSession, tune_id: str, *, after: int, limit: int, without: Sequence[str] = ()
) -> list[TuneEvent]:
    """Return the tune's events after a sequence number, oldest first, but none of the types in `without`."""
    page = select(TuneEvent).where(TuneEvent.tune_id == tune_id, TuneEvent.sequence > after, TuneEvent.type.not_in(without))
    return list(await session.scalars(page.order_by(TuneEvent.sequence).limit(limit)))


async def events_of_types(session: AsyncSession, tune_id: str, types: Sequence[str]) -> list[TuneEvent]:
    """Return all events of a tune that have one of these types, oldest first."""
    found = select(TuneEvent).where(TuneEvent.tune_id == tune_id, TuneEvent.type.in_(types))
    return list(await session.scalars(found.order_by(TuneEvent.sequence)))


async def last_sequence(session: AsyncSession, tune_id: str) -> int:
    """Return the sequence number of the tune's last event, or 0 if it has none."""
    return await session.scalar(select(func.max(TuneEvent.sequence)).where(TuneEvent.tune_id == tune_id)) or 0


async def sample_keys(session: AsyncSession, tune_id: str) -> set[str]:
    """Return the blob keys of the tune's samples that still exist."""
    return set(await session.scalars(select(Sample.blob_key).where(Sample.tune_id == tune_id)))
