"""Who is calling: `Authorization: Bearer <key>`, looked up by the key's hash in every request, and counted."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import func, or_, select, update

from shared.accounts import keys, scopes
from shared.accounts.scopes import Access
from shared.database.sessions import Database
from shared.database.tables import Account, ApiKey
from shared.errors import ForbiddenError, UnauthorizedError
from shared.http.rate import RequestRate
from shared.settings import ApiSettings

FLUSH_EVERY_S = 60.0
"""How often the last use of keys is written down; the row of a busy key must not be updated by every request."""
_CLOSE_TIMEOUT_S = 2.0
_BEARER = HTTPBearer(auto_error=False, description="An API key, as `tunesmith keys create` and `tunesmith env` print it.")
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True)
class Principal:
    """The account behind a request, and what its key may do."""

    account_id: UUID
    key_id: str
    scopes: frozenset[str]

    def may(self, part: str, access: Access) -> bool:
        """Say whether the key may read or write this part of the API."""
        return scopes.allow(self.scopes, part, access)

    @property
    def is_admin(self) -> bool:
        """Whether the key may change what everybody sees."""
        return self.may("admin", "write")


class Authenticator:
    """Turns a bearer key into a principal. A revoked key stops working with the next request: nothing is cached.

    Without settings nobody's requests are limited.
    """

    def __init__(self, database: Database, settings: ApiSettings | None = None) -> None:
        self._database = database
        self._rate = RequestRate(settings.max_requests_per_minute) if settings else None
        self._used: dict[str, datetime] = {}

    async def authenticate(self, secret: str) -> Principal:
        """Return the key's principal.

        Raises UnauthorizedError, whose message does not tell unknown from revoked, and LimitError for an account that asks
        too often.
        """
        if not keys.is_well_formed(secret):
            msg = "the API key is not one of this server's; `tunesmith env` prints the local stack's"
            raise UnauthorizedError(msg, headers=_CHALLENGE)
        alive = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now())
        wanted = select(ApiKey, Account.max_requests_per_minute).join(Account, Account.id == ApiKey.account_id)
        async with self._database.begin() as session:
            rows = await session.execute(
                wanted.where(ApiKey.key_sha256 == keys.sha256(secret), ApiKey.revoked_at.is_(None), alive)
            )
            found = rows.one_or_none()
        if found is None:
            msg = "the API key is unknown, expired or revoked"
            raise UnauthorizedError(msg, headers=_CHALLENGE)
        key, own_limit = found
        self._used[key.id] = datetime.now(UTC)
        if self._rate:
            await self._rate.count(key.account_id, own_limit)
        return Principal(key.account_id, key.id, frozenset(key.scopes))

    async def flush_last_use(self) -> None:
        """Write down when each key was last used. A failure costs nothing: the next flush has the same and more."""
        used = dict(self._used)
        async with self._database.begin() as session:
            # In one order, or two replicas that flush the same keys could deadlock.
            for key_id, at in sorted(used.items()):
                later = func.greatest(ApiKey.last_used_at, at)
                await session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=later))
        self._used = {key_id: at for key_id, at in self._used.items() if used.get(key_id) != at}

    async def close(self) -> None:
        """Write the last use down once more. That the database is away must not keep a process from ending well."""
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.flush_last_use(), _CLOSE_TIMEOUT_S)


def require(part: str) -> Callable[..., Awaitable[Principal]]:
    """Return a FastAPI dependency that lets only keys through that may read, or by other methods write, this part.

    The service's `app.py` sets `app.state.authenticator`. Raises UnauthorizedError, ForbiddenError or LimitError.
    """

    async def dependency(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
    ) -> Principal:
        if credentials is None:
            msg = "no API key: send it as `Authorization: Bearer <key>`"
            raise UnauthorizedError(msg, headers=_CHALLENGE)
        authenticator: Authenticator = request.app.state.authenticator
        principal = await authenticator.authenticate(credentials.credentials)
        access = scopes.access_of(request.method)
        if not principal.may(part, access):
            msg = f"the API key lacks the scope '{part}:{access}'; it has: {', '.join(sorted(principal.scopes))}"
            raise ForbiddenError(msg)
        return principal

    return dependency
