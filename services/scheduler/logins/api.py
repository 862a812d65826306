"""Signing in to the console, out, and who is signed in. The scheduler answers, because the console has no database.

These routes are the console's own and are not in the API's description: programs send their key with each request.
"""

import math
import time
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from sqlalchemy.ext.asyncio import AsyncSession

from services.scheduler.logins.schemas import AccountName, CodeCreated, KeyName, LoginAnswer, SignIn
from shared.accounts import keys, logins
from shared.database.sessions import Database
from shared.errors import LimitError, UnauthorizedError
from shared.http.auth import Principal, identify
from shared.http.cookies import check_same_site, cookie_name, set_cookie
from shared.http.routes import GuardedRoute

_WRONG_PER_MINUTE = 10
_LASTS_S = int(logins.LOGIN_LASTS.total_seconds())


class _WrongTries:
    """Counts the sign-ins of each address that failed in the last minute, in this process's memory."""

    def __init__(self) -> None:
        self._limit = RateLimitItemPerMinute(_WRONG_PER_MINUTE)
        self._window = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def check(self, address: str) -> None:
        """Raise LimitError once the address has used up its wrong tries."""
        if await self._window.test(self._limit, address):
            return
        reset_at, _ = await self._window.get_window_stats(self._limit, address)
        seconds = max(1, math.ceil(reset_at - time.time()))
        msg = f"this address has failed to sign in {_WRONG_PER_MINUTE} times in a minute, the limit; retry in {seconds} s"
        raise LimitError(msg, headers={"Retry-After": str(seconds)})

    async def count(self, address: str) -> None:
        """Count a wrong try."""
        await self._window.hit(self._limit, address)


def router(database: Database, public_url: str) -> APIRouter:
    """Build the routes."""
    routes = APIRouter(prefix="/console/login", include_in_schema=False, route_class=GuardedRoute)
    wrong = _WrongTries()
    cookie = cookie_name(public_url)

    @routes.post("", status_code=204)
    async def sign_in(request: Request, response: Response, body: SignIn) -> None:
        check_same_site(request)
        address = _address(request)
        await wrong.check(address)
        async with database.begin() as session:
            key_id = await _proven_key(session, body)
            token = await logins.create(session, key_id) if key_id else None
        if token is None:
            await wrong.count(address)
            what = "API key is unknown, expired or revoked" if body.key else "link was used already, or is older than 10 minutes"
            msg = f"the {what}; make a new one with `tunesmith {'keys create NAME' if body.key else 'console'}`"
            raise UnauthorizedError(msg)
        set_cookie(response, public_url, token, _LASTS_S)

    @routes.get("")
    async def who(request: Request, response: Response) -> LoginAnswer:
        token = request.cookies.get(cookie, "")
        async with database.begin() as session:
            found = await logins.find(session, token)
        if found is None:
            msg = "no one is signed in with this browser; sign in with an API key, or open a link of `tunesmith console`"
            raise UnauthorizedError(msg)
        key, account = found
        # The browser's copy would end 30 days after the sign-in, and not after the last use.
        set_cookie(response, public_url, token, _LASTS_S)
        return LoginAnswer(
            account=AccountName(id=account.id, name=account.name),
            key=KeyName(id=key.id, name=key.name, hint=key.hint, expires_at=key.expires_at),
            scopes=sorted(key.scopes),
        )

    @routes.delete("", status_code=204)
    async def sign_out(request: Request, response: Response) -> None:
        check_same_site(request)
        async with database.begin() as session:
            await logins.end(session, request.cookies.get(cookie, ""))
        set_cookie(response, public_url, "", 0)

    @routes.post("/codes", status_code=201)
    async def create_code(caller: Annotated[Principal, Depends(identify)]) -> CodeCreated:
        async with database.begin() as session:
            code, expires_at = await logins.create_code(session, caller.key_id)
        return CodeCreated(code=code, expires_at=expires_at)

    return routes


async def _proven_key(session: AsyncSession, body: SignIn) -> str | None:
    if body.code is not None:
        return await logins.key_of_code(session, body.code.get_secret_value())
    assert body.key is not None  # noqa: S101 - SignIn has either
    secret = body.key.get_secret_value().strip()
    return await logins.key_of_secret(session, secret) if keys.is_well_formed(secret) else None


def _address(request: Request) -> str:
    """Return the address of the browser. The edge appends the one that it sees to what the client sent."""
    forwarded = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
    return forwarded or (request.client.host if request.client else "")
