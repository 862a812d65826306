"""The notification that something happened to a generation."""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

CHANNEL = "generations"


async def notify(session: AsyncSession, generation_id: str) -> None:
    """Wake those that watch the generation, once the transaction commits."""
    await session.execute(select(func.pg_notify(CHANNEL, generation_id)))
