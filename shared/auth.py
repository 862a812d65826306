"""Who is calling: `Authorization: Bearer <key>`, looked up by the key's hash in every request."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import func, or_, select

from shared import keys
from shared.db import Database
from shared.errors import ForbiddenError, UnauthorizedError
from shared.tables import ApiKey

_BEARER = HTTPBearer(auto_error=False, description="An API key, as `tunesmith env` prints it.")
_CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True)
class Principal:
    """The account behind a request, and what its key may do."""

    account_id: UUID
    key_id: str
    scopes: frozenset[str]

    @property
    def is_admin(self) -> bool:
        """Whether the key may change what everybody sees."""
        return "admin" in self.scopes


class Authenticator:
    """Turns a bearer key into a principal. A revoked key stops working with the next request: nothing is cached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def authenticate(self, secret: str) -> Principal:
        """Return the key's principal. Raises UnauthorizedError; the message does not tell unknown from revoked."""
        if not keys.is_well_formed(secret):
            msg = "the API key is not one of this server's; `tunesmith env` prints the local stack's"
            raise UnauthorizedError(msg, headers=_CHALLENGE)
        alive = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now())
        async with self._database.begin() as session:
            found = await session.scalar(
                select(ApiKey).where(ApiKey.key_sha256 == keys.sha256(secret), ApiKey.revoked_at.is_(None), alive)
            )
        if found is None:
            msg = "the API key is unknown, expired or revoked"
            raise UnauthorizedError(msg, headers=_CHALLENGE)
        return Principal(found.account_id, found.id, frozenset(found.scopes))


def require(scope: str) -> Callable[..., Awaitable[Principal]]:
    """Return a FastAPI dependency that lets only keys with this scope through.

    The service's `app.py` sets `app.state.authenticator`. Raises UnauthorizedError or ForbiddenError.
    """

    async def dependency(
        request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
    ) -> Principal:
        if credentials is None:
            msg = "no API key: send it as `Authorization: Bearer <key>`"
            raise UnauthorizedError(msg, headers=_CHALLENGE)
        authenticator: Authenticator = request.app.state.authenticator
        principal = await authenticator.authenticate(credentials.credentials)
        if scope not in principal.scopes:
            msg = f"the API key lacks the scope {scope!r}; it has: {', '.join(sorted(principal.scopes))}"
            raise ForbiddenError(msg)
        return principal

    return dependency
