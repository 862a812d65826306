"""Answers to POSTs that carried an `Idempotency-Key`, one table a context, kept for a day."""

from sqlalchemy import CheckConstraint, Column, DateTime, Index, Integer, LargeBinary, Table, Text, Uuid, func

from shared.database.tables.base import Base, Context


def _answers(context: Context) -> Table:
    name = f"idempotency_{context}"
    return Table(
        name,
        Base.metadata,
        Column("account_id", Uuid, primary_key=True),
        Column("route", Text, primary_key=True),
        Column("key", Text, primary_key=True),
        # The hash of path, query and body; secrets in the body are left out of it.
        Column("request_sha256", LargeBinary, nullable=False),
        Column("status", Integer, nullable=True),
        Column("body", LargeBinary, nullable=True),
        # What the request made, where its answer is too large or too secret to keep.
        Column("resource_id", Text, nullable=True),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        CheckConstraint("num_nonnulls(status, body) = CASE WHEN resource_id IS NULL THEN 2 ELSE 0 END", "answer"),
        Index(f"ix_{name}_created_at", "created_at"),
    )


IDEMPOTENCY: dict[Context, Table] = {context: _answers(context) for context in Context}
