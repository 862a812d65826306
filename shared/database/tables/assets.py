"""The asset library. Upload writes it; the scheduler also writes names, through `shared/accounts/names.py`."""

from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text, false
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.tables.base import Base, Bytes, Context, CreatedAt, Timestamp, one_of

ASSET_TYPES = ["file", "checkpoint", "lora", "textual_inversion", "vae"]
ASSET_STATUSES = ["ready_to_upload", "uploaded", "ready", "rejected", "error", "deleted"]
BLOB_STATES = ["staging", "committed", "orphaned", "deleting", "deleted"]


class Asset(Base):
    """Something in the library: a training image, a LoRA, a checkpoint, a VAE or a textual inversion."""

    __tablename__ = "assets"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    asset_type: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text, default="")
    is_public: Mapped[bool] = mapped_column(default=False)
    status: Mapped[str] = mapped_column(Text)
    status_details: Mapped[str] = mapped_column(Text, default="")
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    """What OctoAI's API has for an asset of this type, with base_sha256, shape_class and native_size_px where they are known."""
    size_bytes: Mapped[Bytes] = mapped_column(default=0)
    reserved_bytes: Mapped[Bytes] = mapped_column(default=0, server_default="0")
    """The most that may be in staging until the upload is completed or the import has arrived; counted as stored until then."""
    declared_bytes: Mapped[Bytes | None]
    """The size that the client named when it created the asset."""
    sha256: Mapped[str | None] = mapped_column(Text)
    staging_key: Mapped[str | None] = mapped_column(Text)
    """Where the presigned URL writes; nothing trusts this object until intake has checked it."""
    blob_key: Mapped[str | None] = mapped_column(ForeignKey("blobs.key"))
    """The clean copy; set when the asset becomes ready."""
    original_key: Mapped[str | None] = mapped_column(ForeignKey("blobs.key"))
    """An image as it was sent, which its account alone can read; null where the clean copy has the same bytes."""
    copy_bytes: Mapped[Bytes] = mapped_column(default=0, server_default="0")
    """Size of the clean copy where there is an original beside it, whose size is `size_bytes`; else 0."""
    thumbnail_key: Mapped[str | None] = mapped_column(ForeignKey("blobs.key"))
    """A small WebP of an image; null until it is made."""
    thumbnail_bytes: Mapped[Bytes] = mapped_column(default=0, server_default="0")
    thumbnail_attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    url: Mapped[str | None] = mapped_column(Text)
    """The address that the server fetched the file from; null for an upload, and for an import from `hf_repo`."""
    hf_repo: Mapped[str | None] = mapped_column(Text)
    needs_token: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether the import needs a token. Only the process that received the request has it, in memory."""
    tune_id: Mapped[str | None] = mapped_column(Text)
    """The tune that made this LoRA. No foreign key: assets and tunes are deleted independently."""
    version: Mapped[int] = mapped_column(default=1)
    intake_attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    """How often its bytes were about to be checked, before they have a verdict."""
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]
    uploaded_at: Mapped[Timestamp | None]
    deleted_at: Mapped[Timestamp | None]

    __table_args__ = (
        CheckConstraint(one_of("asset_type", ASSET_TYPES), "type"),
        CheckConstraint(one_of("status", ASSET_STATUSES), "status"),
        CheckConstraint("(status = 'deleted') = (deleted_at IS NOT NULL)", "deleted"),
        CheckConstraint("status <> 'ready' OR blob_key IS NOT NULL", "ready_has_blob"),
        # An import has one source.
        CheckConstraint("url IS NULL OR hf_repo IS NULL", "one_source"),
        CheckConstraint("NOT needs_token OR hf_repo IS NOT NULL", "token_has_source"),
        # A name is free again once its asset is deleted.
        Index("uq_assets_name", "account_id", "name", unique=True, postgresql_where="deleted_at IS NULL"),
        # A tune's LoRA is registered once.
        Index("uq_assets_tune_id", "tune_id", unique=True, postgresql_where="tune_id IS NOT NULL"),
        Index("ix_assets_newest", "account_id", "created_at"),
        # The reconciler looks for uploads without a verdict. An import gets its uploaded_at when its bytes have arrived.
        Index("ix_assets_unchecked", "uploaded_at", postgresql_where="status = 'uploaded'"),
        Index("ix_assets_unfinished", "created_at", postgresql_where="status = 'ready_to_upload'"),
        Index("ix_assets_blob_key", "blob_key"),
        # The collector asks whether an object is an asset's original.
        Index("ix_assets_original_key", "original_key", postgresql_where="original_key IS NOT NULL"),
        Index("ix_assets_thumbnail_key", "thumbnail_key", postgresql_where="thumbnail_key IS NOT NULL"),
        # Upload looks for images whose thumbnail is missing.
        Index(
            "ix_assets_without_thumbnail",
            "thumbnail_attempts",
            "created_at",
            postgresql_where="asset_type = 'file' AND status = 'ready' AND thumbnail_key IS NULL",
        ),
        Index("ix_assets_staging_key", "staging_key", postgresql_where="staging_key IS NOT NULL"),
        # Public lists, newest first.
        Index("ix_assets_public", "created_at", "id", postgresql_where="is_public AND deleted_at IS NULL"),
        # Retention looks for assets and blobs that were deleted long ago.
        Index("ix_assets_deleted", "deleted_at", postgresql_where="deleted_at IS NOT NULL"),
    )


class AccountUsage(Base):
    """What an account has that is not deleted: the number of its assets, and their bytes, copies and reservations.

    A trigger of `assets` counts it when a transaction commits, whoever writes. To sum up 100,000 rows takes 20 ms or more, and
    each create would do so while it locks its account.
    """

    __tablename__ = "account_usage"

    account_id: Mapped[UUID] = mapped_column(primary_key=True)
    """No foreign key: its check would lock the account's row."""
    assets: Mapped[Bytes]
    bytes: Mapped[Bytes]


class PartUpload(Base):
    """A key in staging whose owner got credentials for it, and may have begun any number of uploads in parts.

    MinIO lists such uploads for a whole key only.
    """

    __tablename__ = "part_uploads"

    staging_key: Mapped[str] = mapped_column(Text, primary_key=True)
    until: Mapped[Timestamp]
    """The end of the last credentials."""


class LoraRegistration(Base):
    """How often the LoRA of a trained tune was about to be registered; deleted once it is, or cannot be."""

    __tablename__ = "lora_registrations"

    tune_id: Mapped[str] = mapped_column(Text, primary_key=True)
    """No foreign key: the tune's row is another context's."""
    attempts: Mapped[int]
    tried_at: Mapped[CreatedAt]


class AssetName(Base):
    """The holder of a name in the library: an asset, or a tune for the LoRA that it will make."""

    __tablename__ = "asset_names"

    account_id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    holder_kind: Mapped[str] = mapped_column(Text)
    holder_id: Mapped[str] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint(one_of("holder_kind", ["asset", "tune"]), "holder_kind"),
        # A holder has one name, and its name is released by the holder's id.
        Index("uq_asset_names_holder", "holder_kind", "holder_id", unique=True),
    )


class Blob(Base):
    """An object in the store. An object without a row is garbage; a committed row without an object is an error."""

    __tablename__ = "blobs"

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    owner: Mapped[str] = mapped_column(Text)
    """The context whose prefix the key has; only this context writes the row."""
    state: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str | None] = mapped_column(Text)
    size_bytes: Mapped[Bytes] = mapped_column(default=0)
    content_type: Mapped[str] = mapped_column(Text, default="application/octet-stream")
    created_at: Mapped[CreatedAt]
    orphaned_at: Mapped[Timestamp | None]
    deleted_at: Mapped[Timestamp | None]

    __table_args__ = (
        CheckConstraint(one_of("owner", list(Context)), "owner"),
        CheckConstraint(one_of("state", BLOB_STATES), "state"),
        CheckConstraint("state <> 'committed' OR sha256 IS NOT NULL", "committed_has_sha256"),
        # The collector looks for these three.
        Index("ix_blobs_orphaned", "owner", "orphaned_at", postgresql_where="state = 'orphaned'"),
        Index("ix_blobs_staging", "owner", "created_at", postgresql_where="state = 'staging'"),
        Index("ix_blobs_deleted", "owner", "deleted_at", postgresql_where="state = 'deleted'"),
        Index("ix_blobs_deleting", "owner", "key", postgresql_where="state = 'deleting'"),
        # The sweep compares rows with the store's listing, which is in the order of bytes.
        Index("ix_blobs_listing", "key", postgresql_ops={"key": "text_pattern_ops"}),
    )
