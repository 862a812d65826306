"""Webhooks: the secrets that sign them, and their deliveries. The context of the tunes writes them."""

from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.tables.base import Base, CreatedAt, Timestamp, one_of

DELIVERY_KINDS = ["start", "progress", "completed"]
DELIVERY_STATES = ["pending", "delivered", "failed"]


class WebhookSecret(Base):
    """The secret that signs an account's webhooks. In clear text, because a hash cannot sign."""

    __tablename__ = "webhook_secrets"

    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    secret: Mapped[str] = mapped_column(Text)
    previous: Mapped[str | None] = mapped_column(Text)
    """Also signs until `previous_until`, so that a receiver can change to the new secret."""
    previous_until: Mapped[Timestamp | None]
    created_at: Mapped[CreatedAt]

    __table_args__ = (CheckConstraint("(previous IS NULL) = (previous_until IS NULL)", "previous"),)


class WebhookDelivery(Base):
    """One call of a tune's webhook: written in the event's transaction, and kept for a while after it ended."""

    __tablename__ = "webhook_deliveries"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    """`webhook-id`: the same on every attempt, so that a receiver can recognise a repeat."""
    tune_id: Mapped[str] = mapped_column(ForeignKey("tunes.id"))
    sequence: Mapped[int] = mapped_column(BigInteger)
    """The event's sequence number."""
    kind: Mapped[str] = mapped_column(Text)
    url: Mapped[str] = mapped_column(Text)
    body: Mapped[str] = mapped_column(Text)
    """The JSON that is sent, so that every attempt sends the same bytes."""
    state: Mapped[str] = mapped_column(Text, default="pending", server_default="pending")
    attempt: Mapped[int] = mapped_column(default=0, server_default="0")
    """Attempts that were begun, and their fencing token: only the newest attempt's result is written."""
    claimed_until: Mapped[Timestamp | None]
    due_at: Mapped[CreatedAt]
    last_status: Mapped[int | None]
    last_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[CreatedAt]
    ended_at: Mapped[Timestamp | None]

    __table_args__ = (
        CheckConstraint(one_of("kind", DELIVERY_KINDS), "kind"),
        CheckConstraint(one_of("state", DELIVERY_STATES), "state"),
        CheckConstraint("(state = 'pending') = (ended_at IS NULL)", "ended"),
        # One delivery an event.
        Index("uq_webhook_deliveries_event", "tune_id", "sequence", unique=True),
        Index("ix_webhook_deliveries_due", "due_at", postgresql_where="state = 'pending'"),
        Index("ix_webhook_deliveries_ended", "ended_at", postgresql_where="state <> 'pending'"),
    )
