"""Accounts are sealed (promise 17): each route for the owner, another account, no key, and a narrow, revoked or expired one."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from shared.accounts import accounts
from shared.accounts.scopes import PARTS
from shared.blobs.store import Blobs
from shared.settings import ServiceSettings
from tests.support.platform_world import Platform, drawing, operations, running
from tests.support.sealed_routes import ROUTES, Route

# Whole services run in this process. Where a client of the broker runs into the bound of its stop, its connection stays open.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
READING = ("GET", "HEAD")


@pytest.fixture
async def platform(make_settings: Callable[..., ServiceSettings], blobs: Blobs) -> AsyncIterator[Platform]:
    async with running(make_settings, blobs) as platform, drawing(platform):
        await platform.add_base()
        yield platform


def _filled(value: Any, things: dict[str, str]) -> Any:
    text = json.dumps(value)
    for name, thing in things.items():
        text = text.replace("{" + name + "}", thing)
    return json.loads(text)


async def _things(platform: Platform, account: str, secret: str, *, ended: bool) -> dict[str, str]:
    """Make one of each thing that a route may name; each route gets things of its own."""
    account_id = await platform.account(account)
    mark = uuid4().hex[:8]
    things = {"asset_id": await platform.add_asset(account_id, f"photo-{mark}"), "lora_name": f"lora-{mark}"}
    await platform.add_asset(account_id, things["lora_name"], "lora")
    body = _filled(ROUTES["POST /v1/tune"].body, things) | {"name": f"tune-{mark}"}
    async with platform.client(secret) as client:
        made = await client.post("/v1/tune", json=body)
        assert made.status_code == 201, made.text
        tune_id = made.json()["id"]
        kept = await client.post("/v1/datasets", json={"name": f"dataset-{mark}"})
        assert kept.status_code == 201, kept.text
        if ended:
            assert (await client.post(f"/v1/tune/{tune_id}/cancel")).status_code == 200
    async with platform.database.begin() as session:
        key_id, _ = await accounts.create_key(session, account_id, name="victim", scopes=["tunes"])
    return things | {
        "tune_id": tune_id,
        "dataset_id": kept.json()["id"],
        "response_id": await platform.add_generation(account_id),
        "generation_id": await platform.add_generation(account_id, is_history=True),
        "account_id": str(account_id),
        "key_id": key_id,
    }


async def _call(platform: Platform, operation: str, route: Route, things: dict[str, str], secret: str | None) -> httpx.Response:
    method, path = operation.split(" ")
    for name, value in (things | route.path).items():
        path = path.replace("{" + name + "}", _filled(value, things))
    async with platform.client(secret) as client:
        body = {} if route.body is None else {"json": _filled(route.body, things)}
        return await client.request(method, path, params=_filled(route.query or {}, things), headers=route.headers, **body)


async def test_accounts_are_sealed(platform: Platform) -> None:
    found = operations(platform.document)
    assert set(found) == ROUTES.keys()
    owner_id, other_id = await platform.account("owner"), await platform.account("other")
    all_keys = {
        "owner": await platform.key(owner_id),
        "admin": await platform.key(owner_id, "admin"),
        "other": await platform.key(other_id),
    } | await platform.dead_keys(owner_id)
    for operation in found:
        route = ROUTES[operation]
        things = await _things(platform, "owner", all_keys["owner"], ended=route.ended)
        if not route.part:
            assert (await _call(platform, operation, route, things, None)).status_code == route.owner, operation
            continue
        access = "write" if operation.startswith(READING) else "read"
        others = [part for part in PARTS if part != route.part]

        none = await _call(platform, operation, route, things, None)
        assert (none.status_code, none.json()["code"]) == (401, "unauthorized"), operation
        for kind in ("revoked", "expired"):
            dead = await _call(platform, operation, route, things, all_keys[kind])
            assert dead.status_code == 401, (operation, kind)
        for scopes in (others, [f"{route.part}:{access}"]):
            narrow = await _call(platform, operation, route, things, await platform.key(owner_id, *scopes))
            assert (narrow.status_code, narrow.json()["code"]) == (403, "forbidden"), (operation, scopes)

        other = await _call(platform, operation, route, things, all_keys["other"])
        assert other.status_code == route.other, (operation, other.text)
        if other.is_success:
            assert not [thing for thing in things.values() if thing in other.text], operation

        # None of the refused calls changed anything: the owner's things are still there.
        mine = await _call(platform, operation, route, things, all_keys["admin" if route.part == "admin" else "owner"])
        assert mine.status_code == route.owner, (operation, mine.text)
