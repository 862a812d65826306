"""Accounts and their API keys; written by the admin commands alone."""

from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from shared.tables.base import Base, CreatedAt, Timestamp


class Account(Base):
    """A tenant. The platform's own account holds the public assets, which are named `octoai:NAME`."""

    __tablename__ = "accounts"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    is_platform: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[CreatedAt]

    # There is one platform account: `octoai:NAME` must mean one thing.
    __table_args__ = (Index("uq_accounts_platform", "is_platform", unique=True, postgresql_where="is_platform"),)


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
