"""Signing in to the console, out, and who is signed in. The scheduler answers, because the console has no database.

These routes are the console's own and are not in the API's description: programs send their key with each request.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from services.scheduler.logins.schemas import AccountName, CodeCreated, KeyName, LoginAnswer, SignIn
from shared.accounts import keys, logins
from shared.database.sessions import Database
from shared.errors import UnauthorizedError
from shared.http.auth import Principal, identify
from shared.http.cookies import check_same_site, cookie_name, set_cookie
from shared.http.rate import FailedTries, client_address
from shared.http.routes import GuardedRoute

_WRONG_PER_MINUTE = 10
_TOO_MANY = "this address has failed to sign in {limit} times in a minute, the limit"
_LASTS_S = int(logins.LOGIN_LASTS.total_seconds())


def router(database: Database, public_url: str) -> APIRouter:
    """Build the routes."""
    routes = APIRouter(prefix="/console/login", include_in_schema=False, route_class=GuardedRoute)
    wrong = FailedTries(database, "failed-sign-ins", _WRONG_PER_MINUTE, _TOO_MANY)
    cookie = cookie_name(public_url)

    @routes.post("", status_code=204)
    async def sign_in(request: Request, response: Response, body: SignIn) -> None:
        check_same_site(request)
        secret = (body.code or body.key or SecretStr("")).get_secret_value()
        async with wrong.attempt(client_address(request), keys.sha256(secret)):
            async with database.begin() as session:
                key_id = await _proven_key(session, body)
                token = await logins.create(session, key_id) if key_id else None
            if token is None:
                what, command = "API key is unknown, expired or revoked", "keys create NAME"
                if body.code is not None:
                    what, command = "link was used already, or is older than 10 minutes", "console"
                msg = f"the {what}; make a new one with `tunesmith {command}`"
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
