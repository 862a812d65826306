"""Which events a consumer has handled: a redelivered one is not handled twice.

The inbox forgets after a while; that replays are harmless even then is the handlers' doing, which compare versions.
"""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.tables import INBOXES, Context

KEEP = timedelta(days=8)
"""One day more than the longest retention of a topic."""


async def is_new(session: AsyncSession, context: Context, event_id: UUID, consumer: str, topic: str, partition: int) -> bool:
    """Note that the consumer handles the event in this transaction; False when it has handled it before."""
    row = {"event_id": event_id, "consumer": consumer, "topic": topic, "partition": partition}
    noted = insert(INBOXES[context]).values(row).on_conflict_do_nothing().returning(INBOXES[context].c.event_id)
    return (await session.execute(noted)).scalar_one_or_none() is not None


async def forget(session: AsyncSession, context: Context) -> None:
    """Delete what is older than `KEEP`."""
    table = INBOXES[context]
    await session.execute(delete(table).where(table.c.received_at < func.now() - KEEP))
