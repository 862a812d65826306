"""Signing in to the console: by key or printed code, with a cookie that every service accepts from the console's own pages."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update

from services.scheduler.datasets import api as datasets_api
from services.scheduler.logins import api as logins_api
from services.scheduler.settings import SchedulerSettings
from shared.accounts import accounts, logins
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import ApiKey, Context, Login, LoginCode
from shared.http.auth import Authenticator
from tests.support.world import World, routes_alone

HTTP = "http://console.test"
OWN = {"X-Tunesmith-Console": "1", "Origin": HTTP}
"""What a page of the console sends with a request."""


@dataclass(kw_only=True)
class Console(World):
    """The routes of the sign-in, and one part of the API that a cookie opens."""

    context = Context.TUNES
    settings: SchedulerSettings

    def browser(self, public_url: str = HTTP, **headers: str) -> httpx.AsyncClient:
        routers = [logins_api.router(self.database, public_url), datasets_api.router(self.database)]
        app: FastAPI = routes_alone("scheduler", self.database, routers)
        app.state.authenticator = Authenticator(self.database, self.settings.model_copy(update={"public_url": public_url}))
        transport = httpx.ASGITransport(app)
        return httpx.AsyncClient(transport=transport, base_url=public_url, headers=OWN | {"Origin": public_url} | headers)


@pytest.fixture
async def console(make_settings: Callable[..., SchedulerSettings], database_url: str, blobs: Blobs) -> AsyncIterator[Console]:
    made = Console(database=Database(database_url), blobs=blobs, settings=make_settings(SchedulerSettings))
    yield made
    await made.database.close()


@pytest.fixture
async def account_id(console: Console) -> UUID:
    return await console.account("studio")


async def test_a_key_signs_a_browser_in_and_signing_out_ends_it(console: Console, account_id: UUID) -> None:
    async with console.browser() as browser:
        assert (await browser.get("/console/login")).status_code == 401

        answer = await browser.post("/console/login", json={"key": await console.key(account_id)})

        assert answer.status_code == 204
        cookie = answer.headers["Set-Cookie"]
        assert cookie.startswith("tunesmith_login=")
        assert {"HttpOnly", "SameSite=lax", "Path=/", "Max-Age=2592000"} <= set(cookie.split("; "))
        who = (await browser.get("/console/login")).json()
        assert (who["account"]["name"], who["key"]["name"], who["scopes"]) == ("studio", "key", ["assets", "images", "tunes"])
        assert (await browser.get("/v1/datasets")).status_code == 200
        token = browser.cookies["tunesmith_login"]

        assert (await browser.delete("/console/login")).status_code == 204

        browser.cookies.set("tunesmith_login", token)
        assert (await browser.get("/v1/datasets")).status_code == 401


async def test_a_printed_code_signs_in_once(console: Console, account_id: UUID) -> None:
    async with console.browser(Authorization=f"Bearer {await console.key(account_id)}") as program:
        made = (await program.post("/console/login/codes")).json()
    assert timedelta(minutes=9) < datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC) <= timedelta(minutes=10)

    async with console.browser() as first, console.browser() as second:
        assert (await first.post("/console/login", json={"code": made["code"]})).status_code == 204
        again = await second.post("/console/login", json={"code": made["code"]})

    assert (again.status_code, again.json()["code"]) == (401, "unauthorized")
    assert "tunesmith console" in again.json()["detail"]


async def test_a_code_expires(console: Console, account_id: UUID) -> None:
    async with console.browser(Authorization=f"Bearer {await console.key(account_id)}") as program:
        code = (await program.post("/console/login/codes")).json()["code"]
    async with console.database.begin() as session:
        await session.execute(update(LoginCode).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))

    async with console.browser() as browser:
        assert (await browser.post("/console/login", json={"code": code})).status_code == 401


async def test_revoking_the_key_ends_the_login_with_the_next_request(console: Console, account_id: UUID) -> None:
    async with console.browser() as browser:
        await browser.post("/console/login", json={"key": await console.key(account_id)})
        assert (await browser.get("/v1/datasets")).status_code == 200
        async with console.database.begin() as session:
            key = (await accounts.list_keys(session, account_id))[0]
            await accounts.revoke_key(session, account_id, key.id)

        assert (await browser.get("/v1/datasets")).status_code == 401
        assert (await browser.get("/console/login")).status_code == 401


async def test_a_login_lasts_thirty_days_since_its_last_use(console: Console, account_id: UUID) -> None:
    async with console.browser() as browser:
        await browser.post("/console/login", json={"key": await console.key(account_id)})
        now = datetime.now(UTC)
        async with console.database.begin() as session:
            await session.execute(update(Login).values(seen_at=now - timedelta(days=20), expires_at=now + timedelta(days=10)))

        assert (await browser.get("/v1/datasets")).status_code == 200
        async with console.database.begin() as session:
            renewed = await session.scalar(update(Login).values(seen_at=Login.seen_at).returning(Login.expires_at))
            assert renewed
            assert renewed - now > logins.LOGIN_LASTS - timedelta(minutes=1)
            await session.execute(update(Login).values(expires_at=now - timedelta(seconds=1)))

        assert (await browser.get("/v1/datasets")).status_code == 401


@pytest.mark.parametrize(
    "changed",
    [
        {"X-Tunesmith-Console": "0"},
        {"Origin": "http://127.0.0.1:9"},
        {"Origin": "http://console.test:81"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_a_cookie_changes_nothing_for_a_page_of_another_origin(
    console: Console, account_id: UUID, changed: dict[str, str]
) -> None:
    async with console.browser() as browser:
        await browser.post("/console/login", json={"key": await console.key(account_id)})
        for method, path in (("POST", "/v1/datasets"), ("DELETE", "/console/login"), ("POST", "/console/login/codes")):
            refused = await browser.request(method, path, json={}, headers=changed)
            assert (refused.status_code, refused.json()["code"]) == (403, "cross_site"), path
        assert (await browser.get("/v1/datasets")).json()["total"] == 0

        allowed = await browser.post("/v1/datasets", json={}, headers={"Sec-Fetch-Site": "same-origin"})
        assert allowed.status_code == 201


async def test_a_page_of_another_origin_cannot_sign_a_browser_in(console: Console, account_id: UUID) -> None:
    key = await console.key(account_id)
    async with console.browser(Origin="http://elsewhere.test") as browser:
        refused = await browser.post("/console/login", json={"key": key})

    assert (refused.status_code, refused.json()["code"]) == (403, "cross_site")
    assert "Set-Cookie" not in refused.headers


async def test_a_key_in_the_header_counts_and_the_cookie_does_not(console: Console, account_id: UUID) -> None:
    other = await console.key(await console.account("other"))
    async with console.browser() as browser:
        await browser.post("/console/login", json={"key": await console.key(account_id)})
        await browser.post("/v1/datasets", json={"name": "mine"})

        # A program needs none of the headers of a page.
        program = {"Authorization": f"Bearer {other}", "Origin": "", "X-Tunesmith-Console": ""}
        assert (await browser.get("/v1/datasets", headers=program)).json()["total"] == 0
        assert (await browser.post("/v1/datasets", json={}, headers=program)).status_code == 201


async def test_a_scope_that_the_key_lacks_stays_forbidden(console: Console, account_id: UUID) -> None:
    async with console.browser() as browser:
        await browser.post("/console/login", json={"key": await console.key(account_id, "tunes:read")})

        assert (await browser.get("/v1/datasets")).status_code == 200
        assert (await browser.post("/v1/datasets", json={})).json()["code"] == "forbidden"


async def test_the_eleventh_wrong_try_of_an_address_has_to_wait(console: Console, account_id: UUID) -> None:
    key = await console.key(account_id)
    wrong = {"code": "x" * 43}
    async with console.browser() as browser:
        here, elsewhere = {"X-Forwarded-For": "203.0.113.5, 10.0.0.1"}, {"X-Forwarded-For": "203.0.113.5, 10.0.0.2"}
        for _ in range(10):
            assert (await browser.post("/console/login", json=wrong, headers=here)).status_code == 401

        limited = await browser.post("/console/login", json={"key": key}, headers=here)

        assert limited.status_code == 429
        assert 1 <= int(limited.headers["Retry-After"]) <= 60
        assert (await browser.post("/console/login", json={"key": key}, headers=elsewhere)).status_code == 204


async def test_with_https_the_cookie_is_secure_and_of_this_host_only(console: Console, account_id: UUID) -> None:
    async with console.browser("https://tunes.example.org") as browser:
        answer = await browser.post("/console/login", json={"key": await console.key(account_id)})
        cookie = answer.headers["Set-Cookie"]
        assert cookie.startswith("__Host-tunesmith_login=")
        assert "Secure" in cookie.split("; ")
        assert (await browser.get("/v1/datasets")).status_code == 200

        token = browser.cookies["__Host-tunesmith_login"]
        browser.cookies.clear()
        browser.cookies.set("tunesmith_login", token)
        assert (await browser.get("/v1/datasets")).status_code == 401


async def test_the_database_keeps_no_token(console: Console, account_id: UUID) -> None:
    async with console.browser() as browser:
        await browser.post("/console/login", json={"key": await console.key(account_id)})
        token = browser.cookies["tunesmith_login"]
    async with console.database.begin() as session:
        kept = (await session.scalars(update(Login).values(seen_at=Login.seen_at).returning(Login.token_sha256))).one()
        assert (await session.scalars(update(ApiKey).values(name=ApiKey.name).returning(ApiKey.id))).one()

    assert token.encode() not in kept
    assert len(kept) == 32
