"""The SQL of a tune's events and of the images drawn during training."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.tables import Sample, TuneEvent


async def events_of(session: AsyncSession, tune_id: str, *, after: int, limit: int) -> list[TuneEvent]:
    """Return the tune's events after a sequence number, oldest first."""
    page = select(TuneEvent).where(TuneEvent.tune_id == tune_id, TuneEvent.sequence > after)
    return list(await session.scalars(page.order_by(TuneEvent.sequence).limit(limit)))


async def sample_keys(session: AsyncSession, tune_id: str) -> set[str]:
    """Return the blob keys of the tune's samples that still exist."""
    return set(await session.scalars(select(Sample.blob_key).where(Sample.tune_id == tune_id)))
