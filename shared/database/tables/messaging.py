"""Outbox and inbox, one pair a context: a service's events wait in its own outbox until the broker has them."""

from sqlalchemy import BigInteger, Column, DateTime, Identity, Index, Integer, LargeBinary, Table, Text, Uuid, func
from sqlalchemy.dialects.postgresql import JSONB

from shared.database.tables.base import Base, Context


def _outbox(context: Context) -> Table:
    name = f"outbox_{context}"
    return Table(
        name,
        Base.metadata,
        Column("id", BigInteger, Identity(), primary_key=True),
        # The event's id. A retry and a dead letter have a fresh one; their header `ce_id` has the event's.
        Column("message_id", Uuid, nullable=False, unique=True),
        Column("topic", Text, nullable=False),
        Column("key", Text, nullable=False),
        Column("headers", JSONB, nullable=False),
        Column("body", LargeBinary, nullable=False),
        # A retry is sent later; null means at once.
        Column("not_before", DateTime(timezone=True), nullable=True),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    )


def _inbox(context: Context) -> Table:
    name = f"inbox_{context}"
    return Table(
        name,
        Base.metadata,
        Column("event_id", Uuid, primary_key=True),
        Column("consumer", Text, primary_key=True),
        Column("topic", Text, nullable=False),
        Column("partition", Integer, nullable=False),
        Column("received_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Index(f"ix_{name}_received_at", "received_at"),
    )


OUTBOXES: dict[Context, Table] = {context: _outbox(context) for context in Context}
INBOXES: dict[Context, Table] = {context: _inbox(context) for context in Context}
