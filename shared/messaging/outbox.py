"""Writes messages to the outbox of a context, in the transaction that changes the state that they tell of."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.tables import OUTBOXES, Context
from shared.messaging import cloudevents
from shared.messaging.events import Event

MAX_BODY_BYTES = 256 * 1024
"""Well below Kafka's limit of 1 MiB. One larger message would block all that come after it in the outbox."""


def channel(context: Context) -> str:
    """Return the name of the notification that wakes the context's relay."""
    return f"outbox_{context}"


async def publish(session: AsyncSession, context: Context, *events: Event) -> None:
    """Write events to the context's outbox, in the caller's transaction.

    Call it after the UPDATE that locks the aggregate: then the rows of one key are in the order of its commits. Raises ValueError
    for an event over `MAX_BODY_BYTES`.
    """
    # The session may still hold the aggregate's UPDATE back, which must come first.
    await session.flush()
    for event in events:
        event_id = uuid4()
        headers = cloudevents.headers(event, event_id, source=context)
        await enqueue(session, context, event_id, event.topic, event.key, headers, event.model_dump_json().encode())


async def enqueue(
    session: AsyncSession,
    context: Context,
    message_id: UUID,
    topic: str,
    key: str,
    headers: dict[str, str],
    body: bytes,
    *,
    not_before: datetime | None = None,
) -> None:
    """Write one message to the outbox, as the relay will send it; one with `not_before` is not sent earlier.

    Raises ValueError for a body over `MAX_BODY_BYTES`.
    """
    if len(body) > MAX_BODY_BYTES:
        msg = f"the message for {topic!r} has {len(body)} bytes; at most {MAX_BODY_BYTES} are allowed"
        raise ValueError(msg)
    row = {"message_id": message_id, "topic": topic, "key": key, "headers": headers, "body": body, "not_before": not_before}
    await session.execute(insert(OUTBOXES[context]).values(row))
    # PostgreSQL delivers it at commit, once for all rows of the transaction.
    await session.execute(text("SELECT pg_notify(:channel, '')"), {"channel": channel(context)})
