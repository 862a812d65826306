"""Authentication: each request's `Authorization: Bearer <key>` is looked up by the key's hash, and counted.

Where a request has no such header, the cookie of a browser that is signed in to the console stands for it.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import func, or_, select, update

from shared.accounts import keys, logins, scopes
from shared.accounts.scopes import Access
from shared.database.sessions import Database
from shared.database.tables import Account, ApiKey
from shared.errors import ForbiddenError, UnauthorizedError
from shared.http.cookies import check_same_site, cookie_name
from shared.http.rate import FailedTries, RequestRate, client_address
from shared.settings import ApiSettings
from shared.shares import current_account

FLUSH_EVERY_S = 60.0
"""Seconds between two writes of the keys' last use: not every request may update the row of a busy key."""
_CLOSE_TIMEOUT_S = 2.0
_BEARER = HTTPBearer(auto_error=False, description="An API key, as `tunesmith keys create` and `tunesmith env` print it.")
_CHALLENGE = {"WWW-Authenticate": "Bearer"}
_TOO_MANY = "more than {limit} keys from this address failed within a minute; correct the key"


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
        """Whether the key may change public assets."""
        return self.may("admin", "write")


class Authenticator:
    """Finds the principal of a bearer key. Nothing is cached, so a revoked key is refused with the next request.

    Without settings, no account's requests and no address's failures are limited.
    """

    def __init__(self, database: Database, settings: ApiSettings | None = None, *, service: str = "api") -> None:
        self._database = database
        self.cookie = cookie_name(settings.public_url if settings else "")
        self._rate = RequestRate(database, service, settings.max_requests_per_minute) if settings else None
        # Counted to all services together: an address guesses at any of them.
        self._failures = (
            FailedTries(database, "failed-keys", settings.max_failed_keys_per_minute, _TOO_MANY) if settings else None
        )
        self._used: dict[str, datetime] = {}

    async def authenticate(self, secret: str, address: str = "") -> Principal:
        """Return the key's principal.

        Raises UnauthorizedError, with the same message for an unknown and a revoked key, and LimitError for an account that sends
        too many requests, and for an address that sent too many keys that failed.
        """
        if not keys.is_well_formed(secret):
            msg = "the API key has not the form of a key of Tunesmith; `tunesmith env` prints the local stack's"
            raise UnauthorizedError(msg, headers=_CHALLENGE)
        digest = keys.sha256(secret)
        async with self._failures.attempt(address, digest) if self._failures else contextlib.nullcontext():
            key, own_limit = await self._find(digest)
        principal = await self._count(key, own_limit)
        # From here on the request uses its account's share of the connections.
        current_account.set(principal.account_id)
        return principal

    async def _find(self, digest: bytes) -> tuple[ApiKey, int | None]:
        alive = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now())
        wanted = select(ApiKey, Account.max_requests_per_minute).join(Account, Account.id == ApiKey.account_id)
        async with self._database.begin() as session:
            rows = await session.execute(wanted.where(ApiKey.key_sha256 == digest, ApiKey.revoked_at.is_(None), alive))
            found = rows.one_or_none()
        if found is None:
            msg = "the API key is unknown, expired or revoked; create one with `tunesmith keys create`"
            raise UnauthorizedError(msg, headers=_CHALLENGE)
        key, own_limit = found
        return key, own_limit

    async def authenticate_login(self, token: str) -> Principal:
        """Return the principal of the key that a browser is signed in with.

        Raises UnauthorizedError for a login that has ended, and LimitError for an account that sends too many requests.
        """
        async with self._database.begin() as session:
            found = await logins.find(session, token)
        if found is None:
            msg = "the sign-in has ended, or its API key was revoked; sign in again"
            raise UnauthorizedError(msg, headers=_CHALLENGE)
        key, account = found
        principal = await self._count(key, account.max_requests_per_minute)
        current_account.set(principal.account_id)
        return principal

    async def _count(self, key: ApiKey, own_limit: int | None) -> Principal:
        self._used[key.id] = datetime.now(UTC)
        if self._rate:
            await self._rate.count(key.account_id, own_limit)
        return Principal(key.account_id, key.id, frozenset(key.scopes))

    async def flush_last_use(self) -> None:
        """Write when each key was last used. A failure loses nothing: the next call writes the same and more."""
        used = dict(self._used)
        async with self._database.begin() as session:
            # In a fixed order, or two replicas that write the same keys could deadlock.
            for key_id, at in sorted(used.items()):
                later = func.greatest(ApiKey.last_used_at, at)
                await session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=later))
        self._used = {key_id: at for key_id, at in self._used.items() if used.get(key_id) != at}

    async def close(self) -> None:
        """Write the last use of keys a last time, for at most two seconds: an unavailable database must not delay the end."""
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.flush_last_use(), _CLOSE_TIMEOUT_S)


async def identify(request: Request) -> Principal:
    """Return the principal of a request's key, or of its cookie. The service's `app.py` sets `app.state.authenticator`.

    Raises UnauthorizedError, CrossSiteError or LimitError.
    """
    authenticator: Authenticator = request.app.state.authenticator
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and secret.strip():
        return await authenticator.authenticate(secret.strip(), client_address(request))
    token = request.cookies.get(authenticator.cookie)
    if token is None:
        msg = "the request has no API key; send it as `Authorization: Bearer <key>`"
        raise UnauthorizedError(msg, headers=_CHALLENGE)
    if scopes.access_of(request.method) == "write":
        check_same_site(request)
    return await authenticator.authenticate_login(token)


class Guard:
    """A FastAPI dependency that returns the principal of a key with access to a part of the API.

    GET, HEAD and OPTIONS need read access, other methods write access. `shared/http/routes.py` calls `admit` before the body is
    read; FastAPI then calls the guard, which returns the same principal.
    """

    def __init__(self, part: str) -> None:
        self._part = part

    async def __call__(
        self, request: Request, _credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
    ) -> Principal:
        """Return the principal of the request."""
        principal: Principal | None = getattr(request.state, "principal", None)
        return principal or await self.admit(request)

    async def admit(self, request: Request) -> Principal:
        """Find the principal of the request. Raises what `identify` raises, and ForbiddenError."""
        principal = await identify(request)
        access = scopes.access_of(request.method)
        if not principal.may(self._part, access):
            msg = (
                f"the API key lacks the scope '{self._part}:{access}'; it has {', '.join(sorted(principal.scopes))}; "
                "use a key that has it"
            )
            raise ForbiddenError(msg)
        request.state.principal = principal
        return principal


def require(part: str) -> Guard:
    """Return the dependency for a part of the API. The service's `app.py` sets `app.state.authenticator`."""
    return Guard(part)
