"""Outbox and inbox, one pair a context: a service's events wait in its own table until the broker has them."""

from enum import StrEnum

from sqlalchemy import BigInteger, Column, DateTime, Identity, Index, Integer, LargeBinary, Table, Text, Uuid, func
from sqlalchemy.dialects.postgresql import JSONB

from shared.database.tables.base import Base


class Context(StrEnum):
    """A bounded context: the owner of tables, blobs, an outbox and an inbox."""

    UPLOAD = "upload"
    TUNES = "tunes"
    IMAGES = "images"


def _outbox(context: Context) -> Table:
    name = f"outbox_{context}"
    return Table(
        name,
        Base.metadata,
        Column("id", BigInteger, Identity(), primary_key=True),
        # That of the event; a retry and a dead letter have a fresh one, and name their event in the header `ce_id`.
        Column("message_id", Uuid, nullable=False, unique=True),
        Column("topic", Text, nullable=False),
        Column("key", Text, nullable=False),
        Column("headers", JSONB, nullable=False),
        Column("body", LargeBinary, nullable=False),
        # A retry waits; everything else is due at once.
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
