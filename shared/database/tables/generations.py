"""Image requests and their results. Inference writes them."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.tables.base import Base, CreatedAt, Timestamp, one_of

GENERATION_STATES = ["queued", "running", "succeeded", "failed", "cancelled"]


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
    request: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """The request with its seeds and without its images, so that it can be repeated; null for one of `/generate`."""
    endpoint: Mapped[str | None] = mapped_column(Text)
    """The name of the engine in the request."""
    group_id: Mapped[str | None] = mapped_column(Text)
    """Shared by the variants of one request."""
    grouping: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """What the variants are together: `{kind, axes}`."""
    position: Mapped[int] = mapped_column(default=0, server_default="0")
    """The number of the variant."""
    starred_at: Mapped[Timestamp | None]
    """A starred generation and its images are kept."""
    unstarred_at: Mapped[Timestamp | None]
    """When the star was taken away: from then on the images are kept as long as new ones."""
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
        CheckConstraint("(state IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)", "finished"),
        CheckConstraint("(request IS NULL) = (endpoint IS NULL)", "request"),
        # The reaper and the reconciler look for these.
        Index("ix_generations_unfinished", "state", "updated_at", postgresql_where="finished_at IS NULL"),
        Index("ix_generations_newest", "account_id", "created_at"),
        # The quota counts an account's images in flight.
        Index("ix_generations_in_flight", "account_id", postgresql_where="finished_at IS NULL"),
        # Retention looks for old requests.
        Index("ix_generations_finished", "finished_at", postgresql_where="finished_at IS NOT NULL"),
        # The history, newest first, and the generations of a group.
        Index("ix_generations_history", "account_id", "id", postgresql_where="request IS NOT NULL"),
        Index("ix_generations_group_id", "group_id", postgresql_where="group_id IS NOT NULL"),
        # The collector asks what starred groups need.
        Index("ix_generations_starred", "group_id", postgresql_where="starred_at IS NOT NULL AND group_id IS NOT NULL"),
    )


class GenerationProgress(Base):
    """How far a request is that is being drawn. Unlogged: a preview every half second is written once and read once or twice."""

    __tablename__ = "generation_progress"

    generation_id: Mapped[str] = mapped_column(Text, primary_key=True)
    """No foreign key: an unlogged table is empty after a crash, and the check would lock the generation's row."""
    epoch: Mapped[int] = mapped_column(BigInteger)
    step: Mapped[int]
    steps: Mapped[int]
    preview: Mapped[bytes | None] = mapped_column(LargeBinary)
    """A JPEG."""
    updated_at: Mapped[CreatedAt]

    __table_args__ = ({"prefixes": ["UNLOGGED"]},)
