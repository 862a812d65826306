"""Accounts and their API keys. The admin commands and the admin API write them; every API writes when a key was last used."""

from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from shared.database.tables.base import Base, Bytes, CreatedAt, Timestamp

LIMITS = ("max_requests_per_minute", "max_unfinished_tunes", "max_images_in_flight", "max_stored_bytes", "max_assets")


class Account(Base):
    """A tenant. The platform's account holds the public assets, which clients name `octoai:NAME`."""

    __tablename__ = "accounts"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    is_platform: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[CreatedAt]
    max_requests_per_minute: Mapped[int | None]
    """This limit and the next four replace the settings of the same names; null means that the setting applies."""
    max_unfinished_tunes: Mapped[int | None]
    max_images_in_flight: Mapped[int | None]
    max_stored_bytes: Mapped[Bytes | None]
    max_assets: Mapped[int | None]

    # There is one platform account, so that `octoai:NAME` means one asset.
    __table_args__ = (
        Index("uq_accounts_platform", "is_platform", unique=True, postgresql_where="is_platform"),
        *(CheckConstraint(f"{limit} >= 0", limit) for limit in LIMITS),
    )


class ApiKey(Base):
    """A bearer key. Only its SHA-256 is kept; a key of 128 random bits or more needs no slow hash."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str] = mapped_column(Text)
    hint: Mapped[str] = mapped_column(Text)
    """The key's first characters, by which people recognise it."""
    key_sha256: Mapped[bytes] = mapped_column(LargeBinary, unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[Timestamp | None]
    revoked_at: Mapped[Timestamp | None]
    last_used_at: Mapped[Timestamp | None]


class RequestRow(Base):
    """How many requests of an account the replicas of a service have taken. Unlogged: a crash of the server forgets a minute."""

    __tablename__ = "request_rates"

    account_id: Mapped[UUID] = mapped_column(primary_key=True)
    """No foreign key: its check would lock the account's row with each write."""
    service: Mapped[str] = mapped_column(Text, primary_key=True)
    minute: Mapped[int] = mapped_column(BigInteger)
    """The minute of `used`, counted from 1970."""
    used: Mapped[int]
    before: Mapped[int]
    """What was used in the minute before."""
    granted: Mapped[int]
    """What the last statement took."""

    __table_args__ = ({"prefixes": ["UNLOGGED"]},)


class Login(Base):
    """A browser that is signed in to the console with a key. Only the SHA-256 of its cookie is kept."""

    __tablename__ = "logins"

    token_sha256: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    created_at: Mapped[CreatedAt]
    seen_at: Mapped[CreatedAt]
    expires_at: Mapped[Timestamp]

    __table_args__ = (Index("ix_logins_expires_at", "expires_at"),)


class LoginCode(Base):
    """A code in a printed link, which signs one browser in once. Only its SHA-256 is kept."""

    __tablename__ = "login_codes"

    code_sha256: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[Timestamp]

    __table_args__ = (Index("ix_login_codes_expires_at", "expires_at"),)
