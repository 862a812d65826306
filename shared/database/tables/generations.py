"""Image requests and their results; written by inference."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.tables.base import Base, CreatedAt, Timestamp, one_of

GENERATION_STATES = ["queued", "running", "succeeded", "failed"]


class Generation(Base):
    """One request for images. The row is the truth: Kafka only says that it is there."""

    __tablename__ = "generations"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    engine: Mapped[str] = mapped_column(Text)
    affinity: Mapped[str] = mapped_column(Text)
    """Checkpoint and LoRAs: requests alike in it go to the same worker, which has them loaded."""
    inputs: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """Everything that determines the images: resolved blobs with their sha256, drawn seeds, sampler, sizes."""
    state: Mapped[str] = mapped_column(Text, default="queued")
    attempt: Mapped[int] = mapped_column(default=0)
    claim_epoch: Mapped[int] = mapped_column(BigInteger, default=0)
    """The fencing token: a result is written only under the epoch that claimed the row."""
    claim_token: Mapped[UUID | None]
    claim_holder: Mapped[str | None] = mapped_column(Text)
    claim_expires_at: Mapped[Timestamp | None]
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    """`{code, message, status}` of the taxonomy."""
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
        # What the reaper and the reconciler look for.
        Index("ix_generations_unfinished", "state", "updated_at", postgresql_where="finished_at IS NULL"),
        Index("ix_generations_newest", "account_id", "created_at"),
    )
