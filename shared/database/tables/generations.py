"""Image requests and their results. Inference writes them."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.tables.base import Base, CreatedAt, Timestamp, one_of

GENERATION_STATES = ["queued", "running", "succeeded", "failed"]


class Generation(Base):
    """One request for images. The row has the state; the event on Kafka only says that the row exists."""

    __tablename__ = "generations"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    engine: Mapped[str] = mapped_column(Text)
    affinity: Mapped[str] = mapped_column(Text)
    """Checkpoint and LoRAs: requests with the same affinity go to the same worker, which has them loaded."""
    inputs: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """All that determines the images: blobs with their sha256, seeds, sampler, sizes and the rest."""
    state: Mapped[str] = mapped_column(Text, default="queued")
    attempt: Mapped[int] = mapped_column(default=0)
    claim_epoch: Mapped[int] = mapped_column(BigInteger, default=0)
    """The fencing token: a result is written only under the epoch that claimed the row."""
    claim_token: Mapped[UUID | None]
    claim_holder: Mapped[str | None] = mapped_column(Text)
    claim_expires_at: Mapped[Timestamp | None]
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    """`{code, message, status}`, as `shared/errors.py` has them."""
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]
    finished_at: Mapped[Timestamp | None]

    __table_args__ = (
        CheckConstraint(one_of("state", GENERATION_STATES), "state"),
        CheckConstraint(
            "CASE WHEN state = 'running' THEN num_nonnulls(claim_token, claim_holder, claim_expires_at) = 3"
            " ELSE num_nonnulls(claim_token, claim_holder, claim_expires_at) = 0 END",
            "claim",
        ),
        CheckConstraint("(state = 'succeeded') = (result IS NOT NULL)", "result"),
        CheckConstraint("(state = 'failed') = (error IS NOT NULL)", "error"),
        CheckConstraint("(state IN ('succeeded', 'failed')) = (finished_at IS NOT NULL)", "finished"),
        # The reaper and the reconciler look for these.
        Index("ix_generations_unfinished", "state", "updated_at", postgresql_where="finished_at IS NULL"),
        Index("ix_generations_newest", "account_id", "created_at"),
        # The quota counts an account's images in flight.
        Index("ix_generations_in_flight", "account_id", postgresql_where="finished_at IS NULL"),
        # Retention looks for old requests.
        Index("ix_generations_finished", "finished_at", postgresql_where="finished_at IS NOT NULL"),
    )
