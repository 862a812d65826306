"""Sign-ins of the console: a browser proves a key once, or brings a printed code, and has a cookie from then on.

The database keeps hashes only. A login belongs to its key: revoking the key, or its expiry, ends the login too.
"""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shared.accounts import keys
from shared.database.tables import Account, ApiKey, Login, LoginCode

LOGIN_LASTS = timedelta(days=30)
"""Since its last use."""
CODE_LASTS = timedelta(minutes=10)
_SEEN_EVERY = timedelta(hours=1)
"""Not every request of a page may write the row of its login."""
_ALIVE = ApiKey.revoked_at.is_(None) & or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now())


def _sha256(token: str) -> bytes:
    """Return the hash that the database stores. A token has 256 random bits, so a slow password hash would add nothing."""
    return hashlib.sha256(token.encode()).digest()


async def create_code(session: AsyncSession, key_id: str) -> tuple[str, datetime]:
    """Return a new code that signs one browser in with this key, and when it expires."""
    await session.execute(delete(LoginCode).where(LoginCode.expires_at < func.now()))
    code, expires_at = secrets.token_urlsafe(32), datetime.now(UTC) + CODE_LASTS
    session.add(LoginCode(code_sha256=_sha256(code), key_id=key_id, expires_at=expires_at))
    await session.flush()
    return code, expires_at


async def key_of_code(session: AsyncSession, code: str) -> str | None:
    """Use a code up and return the id of its key; None if there is no such code, or its key is not valid any more."""
    used = delete(LoginCode).where(LoginCode.code_sha256 == _sha256(code), LoginCode.expires_at > func.now())
    key_id = await session.scalar(used.returning(LoginCode.key_id))
    return await session.scalar(select(ApiKey.id).where(ApiKey.id == key_id, _ALIVE)) if key_id else None


async def key_of_secret(session: AsyncSession, secret: str) -> str | None:
    """Return the id of the key with this secret; None if there is none, or it is not valid any more."""
    return await session.scalar(select(ApiKey.id).where(ApiKey.key_sha256 == keys.sha256(secret), _ALIVE))


async def create(session: AsyncSession, key_id: str) -> str:
    """Sign a browser in with this key, and return the token for its cookie."""
    await session.execute(delete(Login).where(Login.expires_at < func.now()))
    token = secrets.token_urlsafe(32)
    session.add(Login(token_sha256=_sha256(token), key_id=key_id, expires_at=datetime.now(UTC) + LOGIN_LASTS))
    await session.flush()
    return token


async def find(session: AsyncSession, token: str) -> tuple[ApiKey, Account] | None:
    """Return the key and the account of a login, and renew it; None if it has ended, or its key is not valid any more."""
    wanted = select(ApiKey, Account, Login.seen_at).join(Login, Login.key_id == ApiKey.id)
    wanted = wanted.join(Account, Account.id == ApiKey.account_id)
    mine = Login.token_sha256 == _sha256(token)
    found = (await session.execute(wanted.where(mine, Login.expires_at > func.now(), _ALIVE))).one_or_none()
    if found is None:
        return None
    key, account, seen_at = found
    now = datetime.now(UTC)
    if now - seen_at > _SEEN_EVERY:
        await session.execute(update(Login).where(mine).values(seen_at=now, expires_at=now + LOGIN_LASTS))
    return key, account


async def end(session: AsyncSession, token: str) -> None:
    """Sign the browser out; a login that has ended already stays so."""
    await session.execute(delete(Login).where(Login.token_sha256 == _sha256(token)))
