"""Accounts and their API keys, for the admin commands and the first start."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared import keys
from shared.errors import InvalidError, NotFoundError
from shared.ids import new_id
from shared.tables import Account, ApiKey

PLATFORM_ACCOUNT = "octoai"
"""The account whose public assets are named `octoai:NAME`."""
SCOPES = ("assets", "tunes", "images", "admin")
USER_SCOPES = ("assets", "tunes", "images")
"""What the first key of an account may do; `admin` is for a key of its own."""


async def create_account(session: AsyncSession, name: str, *, is_platform: bool = False) -> UUID:
    """Create the account, or return the one that has this name already."""
    new = insert(Account).values(id=uuid4(), name=name, is_platform=is_platform)
    await session.execute(new.on_conflict_do_nothing(index_elements=["name"]))
    return (await session.execute(select(Account.id).where(Account.name == name))).scalar_one()


async def create_key(
    session: AsyncSession, account_id: UUID, *, name: str, scopes: tuple[str, ...], expires_at: datetime | None = None
) -> tuple[str, str]:
    """Create a key and return its id and its secret, which is shown this once and never stored.

    Raises InvalidError for a scope that does not exist.
    """
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        msg = f"scopes: {', '.join(unknown) or 'none given'}; choose from {', '.join(SCOPES)}"
        raise InvalidError(msg, loc=("body", "scopes"))
    secret = keys.new_secret()
    key_id = new_id("key")
    session.add(
        ApiKey(
            id=key_id,
            account_id=account_id,
            name=name,
            hint=secret[: keys.HINT_LENGTH],
            key_sha256=keys.sha256(secret),
            scopes=list(scopes),
            expires_at=expires_at,
        )
    )
    await session.flush()
    return key_id, secret


async def list_keys(session: AsyncSession, account_id: UUID) -> list[ApiKey]:
    """Return the account's keys, newest first, the revoked ones included."""
    found = await session.scalars(
        select(ApiKey).where(ApiKey.account_id == account_id).order_by(ApiKey.created_at.desc(), ApiKey.id)
    )
    return list(found)


async def revoke_key(session: AsyncSession, account_id: UUID, key_id: str) -> None:
    """End a key at once. Revoking twice is fine. Raises NotFoundError for an unknown key."""
    revoked = await session.execute(
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.account_id == account_id)
        .values(revoked_at=func.coalesce(ApiKey.revoked_at, func.now()))
        .returning(ApiKey.id)
    )
    if revoked.scalar_one_or_none() is None:
        msg = f"key_id: there is no key {key_id!r} in this account"
        raise NotFoundError(msg)
