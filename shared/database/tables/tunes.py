"""Tunes and their leases. Scheduler and trainer write them; writes that the lease guards go through `shared/tunes/leases.py`."""

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Double, ForeignKey, Index, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.tables.base import Base, Bytes, CreatedAt, Timestamp, one_of
from shared.states import LEASED, TERMINAL, TuneState

_TERMINAL = one_of("state", sorted(TERMINAL))
_LEASED = one_of("state", sorted(LEASED))
FINAL_EVENTS = ("tune.succeeded", "tune.failed", "tune.cancelled")
"""The events that say how a tune ended; they are kept as long as the tune."""


class Tune(Base):
    """A fine-tune: what was requested, its state, its lease and its LoRA."""

    __tablename__ = "tunes"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text, default="")

    base_asset_id: Mapped[str] = mapped_column(Text)
    base_name: Mapped[str] = mapped_column(Text)
    engine: Mapped[str] = mapped_column(Text)
    base_blob_key: Mapped[str] = mapped_column(ForeignKey("blobs.key"))
    """Pinned when the tune is created: the tune keeps these bytes when their asset is deleted or gets others."""
    base_sha256: Mapped[str] = mapped_column(Text)
    shape_class: Mapped[str] = mapped_column(Text)
    native_size_px: Mapped[int]
    steps: Mapped[int]
    seed: Mapped[int] = mapped_column(BigInteger)
    trigger_word: Mapped[str] = mapped_column(Text)
    resize_images: Mapped[bool] = mapped_column(default=False)
    continue_on_rejection: Mapped[bool] = mapped_column(default=False)
    parameters: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    """What the client set beyond OctoAI's fields (rank, learning rate, ...); the recipe has defaults for the rest."""
    request: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """`details`, as the client sent it."""
    dataset_id: Mapped[str | None] = mapped_column(Text)
    """The dataset that it was started from. No foreign key: a dataset may be deleted, and the tune stays as it is."""
    priority: Mapped[int] = mapped_column(default=0)
    webhook: Mapped[str | None] = mapped_column(Text)
    webhook_events: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list, server_default="{}")
    """The kinds of events that the webhook is called for: `start`, `progress`, `completed`."""

    state: Mapped[str] = mapped_column(Text)
    error_code: Mapped[str | None] = mapped_column(Text)
    status_details: Mapped[str] = mapped_column(Text, default="")
    cancel_requested_at: Mapped[Timestamp | None]

    attempt: Mapped[int] = mapped_column(default=0)
    """Attempts that were begun, without those that ended by preemption."""
    max_attempts: Mapped[int] = mapped_column(default=3)
    lease_epoch: Mapped[int] = mapped_column(BigInteger, default=0)
    """The fencing token. It grows by one with each claim, and every write of a trainer names it."""
    lease_token: Mapped[UUID | None]
    """Made by the trainer before the claim, so that it can look up a claim whose COMMIT was not answered."""
    lease_holder: Mapped[str | None] = mapped_column(Text)
    lease_expires_at: Mapped[Timestamp | None]

    step: Mapped[int] = mapped_column(default=0)
    loss: Mapped[float | None] = mapped_column(Double)
    steps_per_second: Mapped[float | None] = mapped_column(Double)
    steps_run: Mapped[int] = mapped_column(default=0)
    """Steps that all attempts computed together, repeated ones included."""

    lora_key: Mapped[str | None] = mapped_column(ForeignKey("blobs.key"))
    lora_sha256: Mapped[str | None] = mapped_column(Text)
    lora_size_bytes: Mapped[Bytes | None]
    lora_asset_id: Mapped[str | None] = mapped_column(Text)

    version: Mapped[int] = mapped_column(BigInteger, default=0)
    """The sequence number of the tune's last event: it grows by one with each."""
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]
    queued_at: Mapped[Timestamp | None]
    started_at: Mapped[Timestamp | None]
    trained_at: Mapped[Timestamp | None]
    """When the LoRA was stored; from then on a cancel is refused."""
    succeeded_at: Mapped[Timestamp | None]
    ended_at: Mapped[Timestamp | None]
    deleted_at: Mapped[Timestamp | None]

    __table_args__ = (
        CheckConstraint(one_of("state", list(TuneState)), "state"),
        CheckConstraint(f"({_TERMINAL}) = (ended_at IS NOT NULL)", "ended"),
        CheckConstraint("(state = 'succeeded') = (succeeded_at IS NOT NULL)", "succeeded"),
        CheckConstraint("state <> 'succeeded' OR lora_asset_id IS NOT NULL", "succeeded_has_lora"),
        CheckConstraint("(trained_at IS NULL) = (lora_key IS NULL)", "trained_has_lora"),
        CheckConstraint("state NOT IN ('publishing', 'succeeded') OR trained_at IS NOT NULL", "published_is_trained"),
        # No half lease: in a leased state all of its columns are set, in any other none is.
        CheckConstraint(
            f"CASE WHEN {_LEASED} THEN num_nonnulls(lease_token, lease_holder, lease_expires_at) = 3"
            " ELSE num_nonnulls(lease_token, lease_holder, lease_expires_at) = 0 END",
            "lease",
        ),
        CheckConstraint("step >= 0 AND step <= steps", "step"),
        # A name is in use until its tune is deleted and has ended: a deleted tune may still be in training.
        Index("uq_tunes_name", "account_id", "name", unique=True, postgresql_where="deleted_at IS NULL OR ended_at IS NULL"),
        Index("ix_tunes_newest", "account_id", "created_at"),
        Index("ix_tunes_dataset_id", "dataset_id", postgresql_where="dataset_id IS NOT NULL"),
        # A claim reads the queue in this order.
        Index("ix_tunes_queue", "account_id", "priority", "queued_at", postgresql_where="state = 'queued'"),
        Index("ix_tunes_leases", "lease_expires_at", postgresql_where="lease_expires_at IS NOT NULL"),
        Index("uq_tunes_lease_token", "lease_token", unique=True, postgresql_where="lease_token IS NOT NULL"),
        Index("ix_tunes_unended", "state", "updated_at", postgresql_where="ended_at IS NULL"),
        # The quota counts an account's tunes.
        Index("ix_tunes_unfinished", "account_id", postgresql_where="ended_at IS NULL"),
        # The collector looks for references to blobs.
        Index("ix_tunes_base_blob_key", "base_blob_key"),
        Index("ix_tunes_lora_key", "lora_key", postgresql_where="lora_key IS NOT NULL"),
        # Retention looks for tunes that were deleted long ago.
        Index("ix_tunes_deleted", "deleted_at", postgresql_where="deleted_at IS NOT NULL"),
    )


class TuneFile(Base):
    """A training image of a tune; `position` is its place in the request."""

    __tablename__ = "tune_files"

    tune_id: Mapped[str] = mapped_column(ForeignKey("tunes.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    asset_id: Mapped[str] = mapped_column(Text)
    caption: Mapped[str] = mapped_column(Text)
    blob_key: Mapped[str | None] = mapped_column(ForeignKey("blobs.key"))
    """Set, and the blob pinned, once the asset is ready."""
    verdict: Mapped[str] = mapped_column(Text, default="pending")
    regularization: Mapped[bool] = mapped_column(default=False, server_default="false")
    """An image of the class, which the account brought for the prior; the others show the subject."""

    __table_args__ = (
        CheckConstraint(one_of("verdict", ["pending", "ready", "rejected"]), "verdict"),
        CheckConstraint("(verdict = 'ready') = (blob_key IS NOT NULL)", "ready_has_blob"),
        Index("ix_tune_files_asset_id", "asset_id"),
        Index("ix_tune_files_blob_key", "blob_key"),
    )


class TuneEvent(Base):
    """An event of a tune; `sequence` is the version that the tune had after it, so it has no gap."""

    __tablename__ = "tune_events"

    tune_id: Mapped[str] = mapped_column(ForeignKey("tunes.id"), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    type: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    occurred_at: Mapped[CreatedAt]

    __table_args__ = (
        # Retention looks for old events, and must not read those that are kept each time.
        Index("ix_tune_events_old", "occurred_at", postgresql_where=f"NOT ({one_of('type', FINAL_EVENTS)})"),
    )


class Checkpoint(Base):
    """A saved state of a training, from which the next attempt resumes."""

    __tablename__ = "checkpoints"

    tune_id: Mapped[str] = mapped_column(ForeignKey("tunes.id"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(BigInteger)
    blob_key: Mapped[str] = mapped_column(ForeignKey("blobs.key"))
    created_at: Mapped[CreatedAt]

    __table_args__ = (Index("ix_checkpoints_blob_key", "blob_key"),)


class Sample(Base):
    """An image for one of the tune's validation prompts. A repeated step replaces it; it is kept until the tune is deleted."""

    __tablename__ = "samples"

    tune_id: Mapped[str] = mapped_column(ForeignKey("tunes.id"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    """The position of its prompt in the request."""
    blob_key: Mapped[str] = mapped_column(ForeignKey("blobs.key"))
    created_at: Mapped[CreatedAt]

    __table_args__ = (Index("ix_samples_blob_key", "blob_key"),)


class Trainer(Base):
    """A trainer, as its last heartbeat described it; shown to people. A request that fits none of them is refused."""

    __tablename__ = "trainers"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    host: Mapped[str] = mapped_column(Text)
    device: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text)
    tune_id: Mapped[str | None] = mapped_column(Text)
    memory_bytes: Mapped[Bytes | None]
    """Of its GPU; NULL for a CPU."""
    started_at: Mapped[CreatedAt]
    seen_at: Mapped[CreatedAt]

    __table_args__ = (CheckConstraint(one_of("state", ["starting", "idle", "busy", "draining"]), "state"),)
