"""Accounts and their API keys: the SQL of the admin commands, the admin API and the first start."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from shared.accounts import keys
from shared.accounts.scopes import SCOPES, USER_SCOPES, check
from shared.database.tables import Account, ApiKey
from shared.errors import NameTakenError, NotFoundError
from shared.ids import new_id

__all__ = ["PLATFORM_ACCOUNT", "SCOPES", "USER_SCOPES"]
PLATFORM_ACCOUNT = "octoai"
"""The account whose public assets are named `octoai:NAME`."""


async def create_account(session: AsyncSession, name: str, *, is_platform: bool = False) -> UUID:
    """Create the account unless one has this name, and return the id of the account with this name."""
    new = insert(Account).values(id=uuid4(), name=name, is_platform=is_platform)
    await session.execute(new.on_conflict_do_nothing(index_elements=["name"]))
    return (await session.execute(select(Account.id).where(Account.name == name))).scalar_one()


async def add_account(session: AsyncSession, name: str, limits: Mapping[str, int | None]) -> Account:
    """Create an account with its own limits. Raises NameTakenError."""
    new = insert(Account).values(id=uuid4(), name=name, is_platform=False, **limits)
    made = await session.scalar(new.on_conflict_do_nothing(index_elements=["name"]).returning(Account))
    if made is None:
        msg = f"name: an account named {name!r} exists already; choose another name"
        raise NameTakenError(msg)
    return made


async def find_account(session: AsyncSession, account_id: UUID) -> Account:
    """Return the account. Raises NotFoundError."""
    found = await session.get(Account, account_id)
    if found is None:
        msg = f"account_id: there is no account {account_id}"
        raise NotFoundError(msg)
    return found


async def named(session: AsyncSession, name: str) -> UUID:
    """Return the id of the account with this name. Raises NotFoundError."""
    found = await session.scalar(select(Account.id).where(Account.name == name))
    if found is None:
        msg = f"account: there is no account named {name!r}"
        raise NotFoundError(msg)
    return found


async def list_accounts(session: AsyncSession, *, offset: int, limit: int) -> tuple[Sequence[Account], int]:
    """Return a page of the accounts, newest first, and how many there are."""
    total = await session.scalar(select(func.count()).select_from(Account))
    page = select(Account).order_by(Account.created_at.desc(), Account.id).offset(offset).limit(limit)
    return (await session.scalars(page)).all(), total or 0


async def set_limits(session: AsyncSession, account_id: UUID, limits: Mapping[str, int | None]) -> Account:
    """Set the account's own limits; where one is None, the setting applies. Raises NotFoundError."""
    account = await find_account(session, account_id)
    for limit, value in limits.items():
        setattr(account, limit, value)
    await session.flush()
    return account


async def create_key(
    session: AsyncSession, account_id: UUID, *, name: str, scopes: Sequence[str], expires_at: datetime | None = None
) -> tuple[str, str]:
    """Create a key, and return its id and its secret. The secret is not stored, so this is the only time to show it.

    Raises InvalidError for a scope that does not exist.
    """
    secret = keys.new_secret()
    key_id = new_id("key")
    await add_key(session, account_id, key_id, secret, name=name, scopes=scopes, expires_at=expires_at)
    return key_id, secret


async def add_key(
    session: AsyncSession,
    account_id: UUID,
    key_id: str,
    secret: str,
    *,
    name: str,
    scopes: Sequence[str],
    expires_at: datetime | None,
) -> ApiKey:
    """Add a key; only the hash of its secret is stored. Raises InvalidError for a scope that does not exist."""
    key = ApiKey(
        id=key_id,
        account_id=account_id,
        name=name,
        hint=secret[: keys.HINT_LENGTH],
        key_sha256=keys.sha256(secret),
        scopes=check(scopes),
        expires_at=expires_at,
    )
    session.add(key)
    await session.flush()
    await session.refresh(key)
    return key


async def list_keys(session: AsyncSession, account_id: UUID) -> list[ApiKey]:
    """Return the account's keys, revoked ones included, newest first."""
    found = await session.scalars(
        select(ApiKey).where(ApiKey.account_id == account_id).order_by(ApiKey.created_at.desc(), ApiKey.id)
    )
    return list(found)


async def revoke_key(session: AsyncSession, account_id: UUID, key_id: str) -> ApiKey:
    """Revoke a key from now on; a key that is revoked already stays so. Raises NotFoundError for an unknown key."""
    revoked = await session.scalar(
        update(ApiKey)
        .where(ApiKey.id == key_id, ApiKey.account_id == account_id)
        .values(revoked_at=func.coalesce(ApiKey.revoked_at, func.now()))
        .returning(ApiKey)
    )
    if revoked is None:
        msg = f"key_id: there is no key {key_id!r} in this account"
        raise NotFoundError(msg)
    return revoked
