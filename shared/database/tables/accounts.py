"""Accounts and their API keys; written by the admin commands and the admin API (the last use of a key by whoever looks it up)."""

from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.tables.base import Base, Bytes, CreatedAt, Timestamp

LIMITS = ("max_requests_per_minute", "max_unfinished_tunes", "max_images_in_flight", "max_stored_bytes")


class Account(Base):
    """A tenant. The platform's own account holds the public assets, which are named `octoai:NAME`."""

    __tablename__ = "accounts"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    is_platform: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[CreatedAt]
    max_requests_per_minute: Mapped[int | None]
    """This limit and the next three go before the setting of the same name; null leaves it to the setting."""
    max_unfinished_tunes: Mapped[int | None]
    max_images_in_flight: Mapped[int | None]
    max_stored_bytes: Mapped[Bytes | None]

    # There is one platform account: `octoai:NAME` must mean one thing.
    __table_args__ = (
        Index("uq_accounts_platform", "is_platform", unique=True, postgresql_where="is_platform"),
        *(CheckConstraint(f"{limit} >= 0", limit) for limit in LIMITS),
    )


class ApiKey(Base):
    """A bearer key; only its SHA-256 is kept (128 random bits or more need no slow hash)."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str] = mapped_column(Text)
    hint: Mapped[str] = mapped_column(Text)
    """The key's first characters, for people to recognise it by."""
    key_sha256: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[Timestamp | None]
    revoked_at: Mapped[Timestamp | None]
    last_used_at: Mapped[Timestamp | None]
