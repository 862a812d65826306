"""The admin API: accounts, limits and keys; and the effects of an `Idempotency-Key`, on the admin API's routes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, text, update

from services.scheduler.admin import api as admin
from shared.accounts import accounts
from shared.database import retention
from shared.database.sessions import Database
from shared.database.tables import IDEMPOTENCY, Account, ApiKey, Context
from shared.errors import UnauthorizedError
from shared.http import app as web
from shared.http import idempotency
from shared.http.auth import Authenticator
from shared.settings import ApiSettings

ANSWERS = IDEMPOTENCY[Context.TUNES]


@dataclass
class World:
    database: Database
    authenticator: Authenticator
    client: httpx.AsyncClient
    second: httpx.AsyncClient
    """An admin of another account."""

    async def account(self, name: str = "studio", **limits: int) -> dict[str, Any]:
        answer = await self.client.post("/v1/admin/accounts", json={"name": name, "limits": limits})
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def count(self, table: Any) -> int:
        async with self.database.begin() as session:
            return await session.scalar(select(func.count()).select_from(table)) or 0


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield


@pytest.fixture
async def world(make_settings: Callable[..., Any], database_url: str) -> AsyncIterator[World]:
    database = Database(database_url)
    app = web.create_app("scheduler", lifespan=_lifespan, routers=[admin.router(database)])
    app.state.authenticator = authenticator = Authenticator(database, make_settings(ApiSettings))

    async def client(account: str) -> httpx.AsyncClient:
        async with database.begin() as session:
            account_id = await accounts.create_account(session, account)
            _, secret = await accounts.create_key(session, account_id, name="admin", scopes=["admin"])
        headers = {"Authorization": f"Bearer {secret}"}
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://scheduler.test", headers=headers)

    world = World(database, authenticator, await client("operators"), await client("others"))
    yield world
    await world.client.aclose()
    await world.second.aclose()
    await database.close()


async def test_an_account_is_created_shown_and_listed(world: World) -> None:
    made = await world.account("studio", max_unfinished_tunes=3)

    assert (made["name"], made["is_platform"]) == ("studio", False)
    assert made["limits"]["max_unfinished_tunes"] == 3
    assert made["limits"]["max_stored_bytes"] is None
    assert (await world.client.get(f"/v1/admin/accounts/{made['id']}")).json() == made
    page = (await world.client.get("/v1/admin/accounts", params={"limit": 1})).json()
    assert (page["data"], page["has_more"], page["total"]) == ([made], True, 3)


async def test_the_name_of_an_account_is_unique_even_in_a_race(world: World) -> None:
    answers = await asyncio.gather(*(world.client.post("/v1/admin/accounts", json={"name": "studio"}) for _ in range(8)))

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    assert {answer.json().get("code") for answer in answers} == {None, "name_taken"}


async def test_a_limit_is_set_or_cleared_and_the_others_stay(world: World) -> None:
    made = await world.account("studio", max_unfinished_tunes=3, max_stored_bytes=10)
    path = f"/v1/admin/accounts/{made['id']}"

    await world.client.patch(path, json={"limits": {"max_unfinished_tunes": None, "max_images_in_flight": 2**31 - 1}})

    limits = (await world.client.get(path)).json()["limits"]
    assert limits == {
        "max_requests_per_minute": None,
        "max_unfinished_tunes": None,
        "max_images_in_flight": 2**31 - 1,
        "max_stored_bytes": 10,
        "max_assets": None,
    }
    for wrong in ({"max_unfinished_tunes": -1}, {"max_stored_bytes": 2**63}, {"tunes": 1}):
        assert (await world.client.patch(path, json={"limits": wrong})).status_code == 422


async def test_a_key_authenticates_until_it_is_revoked_and_stays_in_the_list(world: World) -> None:
    account = await world.account()
    path = f"/v1/admin/accounts/{account['id']}/keys"
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()

    made = (await world.client.post(path, json={"name": "laptop", "scopes": ["tunes:read"], "expires_at": later})).json()

    principal = await world.authenticator.authenticate(made["secret"])
    assert (str(principal.account_id), principal.scopes) == (account["id"], {"tunes:read"})
    revoked = await world.client.delete(f"{path}/{made['id']}")
    assert revoked.json()["revoked_at"] is not None
    with pytest.raises(UnauthorizedError):
        await world.authenticator.authenticate(made["secret"])
    [listed] = (await world.client.get(path)).json()["data"]
    assert listed == revoked.json()
    assert "secret" not in listed
    assert made["secret"].startswith(listed["hint"])


async def test_an_error_of_a_key_names_its_field(world: World) -> None:
    path = f"/v1/admin/accounts/{(await world.account())['id']}/keys"
    past = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    for change, field in (
        ({"scopes": ["everything"]}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"expires_at": past}, "expires_at"),
        ({"name": ""}, "name"),
    ):
        answer = await world.client.post(path, json={"name": "laptop"} | change)
        assert answer.status_code == 422, change
        assert answer.json()["detail"][0]["loc"] == ["body", field]
    assert (await world.client.get(path)).json()["data"] == []


async def test_unknown_accounts_and_keys_are_not_found(world: World) -> None:
    account, unknown = (await world.account())["id"], "00000000-0000-4000-8000-000000000000"

    answers = [
        await world.client.get(f"/v1/admin/accounts/{unknown}"),
        await world.client.patch(f"/v1/admin/accounts/{unknown}", json={"limits": {}}),
        await world.client.get(f"/v1/admin/accounts/{unknown}/keys"),
        await world.client.post(f"/v1/admin/accounts/{unknown}/keys", json={"name": "x"}),
        await world.client.delete(f"/v1/admin/accounts/{account}/keys/key_unknown"),
    ]

    assert [answer.status_code for answer in answers] == [404] * 5


async def test_the_last_use_of_a_key_is_stored_at_the_next_flush(world: World) -> None:
    async def last_use() -> datetime | None:
        async with world.database.begin() as session:
            wanted = select(ApiKey.last_used_at).join(Account, Account.id == ApiKey.account_id)
            return await session.scalar(wanted.where(Account.name == "operators"))

    began = datetime.now(UTC)
    await world.client.get("/v1/admin/accounts")
    assert await last_use() is None

    await world.authenticator.flush_last_use()

    used = await last_use()
    assert used is not None
    assert began <= used <= datetime.now(UTC)
    await world.authenticator.flush_last_use()
    assert await last_use() == used


async def test_an_account_over_its_rate_is_refused_with_retry_after(world: World) -> None:
    async with world.database.begin() as session:
        await session.execute(update(Account).where(Account.name == "operators").values(max_requests_per_minute=2))

    answers = [await world.client.get("/v1/admin/accounts") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["code"] == "limit_exceeded"
    assert int(answers[2].headers["Retry-After"]) >= 1
    assert (await world.second.get("/v1/admin/accounts")).status_code == 200


async def test_a_repeated_request_gets_the_same_answer_and_has_no_second_effect(world: World) -> None:
    request = {"json": {"name": "studio"}, "headers": {"Idempotency-Key": "k1"}}

    first = await world.client.post("/v1/admin/accounts", **request)
    again = await world.client.post("/v1/admin/accounts", **request)

    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert ("Idempotency-Replayed" in first.headers, again.headers["Idempotency-Replayed"]) == (False, "true")
    assert first.headers["X-User-Request-ID"] != again.headers["X-User-Request-ID"]
    assert await world.count(Account) == 3


async def test_simultaneous_repeats_have_one_effect(world: World) -> None:
    request = {"json": {"name": "studio"}, "headers": {"Idempotency-Key": "k1"}}

    answers = await asyncio.gather(*(world.client.post("/v1/admin/accounts", **request) for _ in range(8)))

    assert [answer.status_code for answer in answers] == [201] * 8
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 7


async def test_an_idempotency_key_is_for_one_request(world: World) -> None:
    headers = {"Idempotency-Key": "k1"}
    await world.client.post("/v1/admin/accounts", json={"name": "studio"}, headers=headers)

    other = await world.client.post("/v1/admin/accounts", json={"name": "atelier"}, headers=headers)

    assert other.status_code == 422
    assert other.json()["detail"][0]["loc"] == ["header", "Idempotency-Key"]
    assert await world.count(Account) == 3


async def test_each_account_and_each_route_has_idempotency_keys_of_its_own(world: World) -> None:
    headers = {"Idempotency-Key": "k1"}

    mine = await world.client.post("/v1/admin/accounts", json={"name": "studio"}, headers=headers)
    theirs = await world.second.post("/v1/admin/accounts", json={"name": "atelier"}, headers=headers)
    key = await world.client.post(f"/v1/admin/accounts/{mine.json()['id']}/keys", json={"name": "x"}, headers=headers)

    assert [answer.status_code for answer in (mine, theirs, key)] == [201] * 3


async def test_an_error_is_not_replayed(world: World) -> None:
    request = {"json": {"name": "studio"}, "headers": {"Idempotency-Key": "k1"}}
    holder = await world.account("studio")
    refused = await world.client.post("/v1/admin/accounts", **request)
    assert refused.status_code == 409
    async with world.database.begin() as session:
        await session.execute(update(Account).where(Account.id == holder["id"]).values(name="renamed"))

    assert (await world.client.post("/v1/admin/accounts", **request)).status_code == 201


async def test_an_idempotency_key_is_forgotten_after_a_day(world: World) -> None:
    headers = {"Idempotency-Key": "k1"}
    for name in ("studio", "atelier"):
        made = await world.client.post("/v1/admin/accounts", json={"name": name}, headers=headers)
        assert made.status_code == 201, made.text
        async with world.database.begin() as session:
            await session.execute(update(ANSWERS).values(created_at=func.now() - text("interval '25 hours'")))

    await retention.forget(world.database, "tunes", idempotency.expired(Context.TUNES))

    assert await world.count(ANSWERS) == 0


async def test_a_secret_is_not_stored_and_so_not_replayed(world: World) -> None:
    path = f"/v1/admin/accounts/{(await world.account())['id']}/keys"
    request = {"json": {"name": "laptop"}, "headers": {"Idempotency-Key": "k1"}}

    made = await world.client.post(path, **request)
    again = await world.client.post(path, **request)

    assert (made.status_code, again.status_code) == (201, 409)
    assert made.json()["id"] in again.json()["detail"]
    assert len((await world.client.get(path)).json()["data"]) == 1
    async with world.database.begin() as session:
        [row] = (await session.execute(select(ANSWERS))).all()
    assert (row.body, row.resource_id) == (None, made.json()["id"])


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
async def test_a_malformed_idempotency_key_is_refused(world: World, key: str) -> None:
    answer = await world.client.post("/v1/admin/accounts", json={"name": "studio"}, headers={"Idempotency-Key": key})

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["header", "Idempotency-Key"]
