"""The events that each consumer has handled, so that a redelivered one is not handled twice.

The inbox forgets them after eight days. A replay is harmless even then: handlers decide by what the database has.
"""

from datetime import timedelta
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.retention import Expired, older_than
from shared.database.tables import INBOXES, Context

KEEP = timedelta(days=8)
"""One day more than the longest retention of a topic of events."""


async def is_new(session: AsyncSession, context: Context, event_id: UUID, consumer: str, topic: str, partition: int) -> bool:
    """Record that the consumer handles the event in this transaction; return False when it has handled it before."""
    row = {"event_id": event_id, "consumer": consumer, "topic": topic, "partition": partition}
    recorded = insert(INBOXES[context]).values(row).on_conflict_do_nothing().returning(INBOXES[context].c.event_id)
    return (await session.execute(recorded)).scalar_one_or_none() is not None


def expired(context: Context) -> Expired:
    """Return the rows that are older than `KEEP`."""
    table = INBOXES[context]
    return Expired(table, older_than(table.c.received_at, KEEP.total_seconds()))
