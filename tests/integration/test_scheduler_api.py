"""The tune API, in the shapes that OctoAI's clients insist on, and what starts and ends a tune."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import func, select, update

from services.scheduler import api
from services.scheduler.service import TuneService
from services.scheduler.settings import SchedulerSettings
from services.scheduler.watch import Reconciler
from shared import accounts, blob_rows, names, web
from shared.auth import Authenticator
from shared.background import Background
from shared.blobs import Stored
from shared.db import Database
from shared.ids import new_id
from shared.tables import OUTBOXES, Asset, AssetName, Blob, Context, Tune, TuneEvent

SD15 = "image/stable-diffusion-v1-5"


@dataclass
class World:
    """A scheduler's parts, a client of an account and one of a stranger, and a library without an upload service."""

    database: Database
    service: TuneService
    client: httpx.AsyncClient
    stranger: httpx.AsyncClient
    account_id: UUID
    platform_id: UUID

    async def add_asset(self, name: str, asset_type: str = "file", *, status: str = "ready", **more: Any) -> str:
        """Put an asset into the library, as upload does."""
        asset_id, key = new_id("asset"), f"assets/{name}/{new_id('blob')}"
        async with self.database.begin() as session:
            await blob_rows.stage(session, Context.UPLOAD, key)
            await blob_rows.commit(session, key, Stored("ab" * 32, 1))
            values = {"account_id": self.account_id, "data": {"asset_type": asset_type}} | more
            blob_key = key if status == "ready" else None
            asset = Asset(
                id=asset_id,
                asset_type=asset_type,
                name=name,
                status=status,
                blob_key=blob_key,
                sha256="ab" * 32,
                **values,
            )
            session.add(asset)
            await session.flush()
            await names.reserve(session, asset.account_id, name, "asset", asset_id)
        return asset_id

    async def verdict(self, asset_id: str, status: str) -> None:
        """Give the verdict on an uploaded picture, without saying so to anybody."""
        async with self.database.begin() as session:
            key = f"assets/{asset_id}/x.png"
            await blob_rows.stage(session, Context.UPLOAD, key)
            await blob_rows.commit(session, key, Stored("cd" * 32, 1))
            values = {"status": status, "blob_key": key if status == "ready" else None, "status_details": "no picture"}
            await session.execute(update(Asset).where(Asset.id == asset_id).values(values))

    async def body(self, name: str = "sks1-dog", **details: Any) -> dict[str, Any]:
        """Return a request for a tune on a fresh picture."""
        if "files" not in details:
            details["files"] = [{"file_id": await self.add_asset(new_id("photo"))}]
        base = {"base_checkpoint": {"checkpoint_id": "octoai:tiny-sd15"}, "steps": 10, "trigger_words": ["sks1"]}
        return {"name": name, "details": base | details}

    async def create(self, name: str = "sks1-dog", *, top: dict[str, Any] | None = None, **details: Any) -> dict[str, Any]:
        answer = await self.client.post("/v1/tune", json=await self.body(name, **details) | (top or {}))
        assert answer.status_code == httpx.codes.CREATED, answer.text
        return answer.json()

    async def row(self, tune_id: str) -> Tune:
        async with self.database.begin() as session:
            return await session.get_one(Tune, tune_id)

    async def events(self, tune_id: str) -> list[tuple[int, str]]:
        async with self.database.begin() as session:
            rows = await session.execute(
                select(TuneEvent.sequence, TuneEvent.type).where(TuneEvent.tune_id == tune_id).order_by(TuneEvent.sequence)
            )
            return [(sequence, kind) for sequence, kind in rows]

    async def facts(self) -> list[tuple[str, int]]:
        """Return the type and version of each fact that waits in the outbox, in order."""
        outbox = OUTBOXES[Context.TUNES]
        async with self.database.begin() as session:
            rows = await session.execute(select(outbox.c.headers, outbox.c.body).order_by(outbox.c.id))
            return [(headers["ce_type"], json.loads(body)["version"]) for headers, body in rows]

    async def name_holder(self, name: str) -> str | None:
        async with self.database.begin() as session:
            return await session.scalar(select(AssetName.holder_kind).where(AssetName.name == name))

    async def train(self, tune_id: str) -> None:
        """Bring a queued tune to the point where its LoRA waits to be registered."""
        key = f"tunes/{tune_id}/1/lora.safetensors"
        async with self.database.begin() as session:
            await blob_rows.stage(session, Context.TUNES, key)
            await blob_rows.commit(session, key, Stored("ef" * 32, 1))
            values = {
                "state": "publishing",
                "lease_epoch": 1,
                "lora_key": key,
                "lora_sha256": "ef" * 32,
                "trained_at": func.now(),
            }
            await session.execute(update(Tune).where(Tune.id == tune_id).values(values))


@pytest.fixture
async def world(make_settings: Callable[..., SchedulerSettings], database_url: str) -> AsyncIterator[World]:
    database = Database(database_url)
    service = TuneService(make_settings(SchedulerSettings))
    app = web.create_app("scheduler", lifespan=lambda _app: Background(), routers=[api.router(database, service)])  # pyright: ignore[reportArgumentType] - never entered
    app.state.authenticator = Authenticator(database)

    async def client(account: str) -> tuple[UUID, httpx.AsyncClient]:
        async with database.begin() as session:
            account_id = await accounts.create_account(session, account)
            _, secret = await accounts.create_key(session, account_id, name="key", scopes=accounts.USER_SCOPES)
        headers = {"Authorization": f"Bearer {secret}"}
        transport = httpx.ASGITransport(app)
        return account_id, httpx.AsyncClient(transport=transport, base_url="http://scheduler.test", headers=headers)

    account_id, own = await client("studio")
    _, stranger = await client("stranger")
    async with database.begin() as session:
        platform_id = await accounts.create_account(session, accounts.PLATFORM_ACCOUNT, is_platform=True)
    world = World(database, service, own, stranger, account_id, platform_id)
    data = {"asset_type": "checkpoint", "engine": SD15, "native_size_px": 64, "shape_class": "sd15-3f2a9c1d"}
    await world.add_asset("tiny-sd15", "checkpoint", account_id=platform_id, is_public=True, data=data)
    yield world
    await own.aclose()
    await stranger.aclose()
    await database.close()


async def test_a_new_tune_is_answered_in_full_and_queued(world: World) -> None:
    picture = await world.add_asset("photo")

    tune = await world.create(files=[{"file_id": picture}], seed=None, tune_type="lora_tune")

    assert re.fullmatch(r"tune_[0-9a-z]{26}", tune["id"])
    assert (tune["status"], tune["status_details"], tune["description"]) == ("pending", "", "")
    assert (tune["tune_type"], tune["tenant_id"]) == ("lora_tune", str(world.account_id))
    assert (tune["output_lora_ids"], tune["result"], tune["succeeded_at"], tune["deleted_at"]) == ([], None, None, None)
    details = tune["details"]
    assert details["tune_type"] == "lora_tune"
    assert details["base_checkpoint"]["engine"] == SD15
    assert details["base_checkpoint"]["name"] == "octoai:tiny-sd15"
    assert details["files"] == [{"file_id": picture, "caption": "sks1"}]
    assert details["trigger_words"] == ["sks1"]
    assert (await world.row(tune["id"])).state == "queued"
    assert await world.events(tune["id"]) == [(1, "tune.queued")]
    assert await world.name_holder("sks1-dog") == "tune"


async def test_a_tune_waits_for_its_files_and_needs_no_fact_to_go_on(world: World) -> None:
    uploaded = await world.add_asset("photo", status="uploaded")
    tune = await world.create(files=[{"file_id": uploaded}])
    assert (await world.row(tune["id"])).state == "waiting_files"

    await world.verdict(uploaded, "ready")
    await Reconciler(world.database, world.service).run_once()

    assert (await world.row(tune["id"])).state == "queued"
    shown = (await world.client.get(f"/v1/tune/{tune['id']}")).json()
    assert shown["status"] == "pending"


async def test_a_tune_whose_files_are_rejected_fails_unless_it_may_go_on(world: World) -> None:
    good, bad = await world.add_asset("good"), await world.add_asset("bad", status="uploaded")
    files = [{"file_id": good}, {"file_id": bad}]
    strict = await world.create("strict", files=files)
    lenient = await world.create("lenient", files=files, top={"continue_on_rejection": True})

    await world.verdict(bad, "rejected")
    await Reconciler(world.database, world.service).run_once()

    failed = (await world.client.get(f"/v1/tune/{strict['id']}")).json()
    assert failed["status"] == "failed"
    assert f"1 of 2 files cannot be trained on, the first is {bad}" in failed["status_details"]
    assert await world.name_holder("strict") is None
    assert (await world.row(lenient["id"])).state == "queued"
    refused = await world.client.post("/v1/tune", json=await world.body("late", files=files))
    assert refused.status_code == 422
    assert "no picture" in refused.json()["detail"][0]["msg"]


WRONG: list[tuple[dict[str, Any], list[str | int]]] = [
    ({"name": "a b"}, ["body", "name"]),
    ({"files": []}, ["body", "details", "files"]),
    ({"files": [{"file_id": "asset_unknown"}]}, ["body", "details", "files", 0, "file_id"]),
    ({"steps": 0}, ["body", "details", "steps"]),
    ({"steps": 10**9}, ["body", "details", "steps"]),
    ({"trigger_words": []}, ["body", "details", "trigger_words"]),
    ({"trigger_words": ["a", "b"]}, ["body", "details", "trigger_words"]),
    ({"trigger_words": [" "]}, ["body", "details", "trigger_words"]),
    ({"seed": 2**32}, ["body", "details", "seed"]),
    ({"base_checkpoint": {"checkpoint_id": "octoai:none"}}, ["body", "details", "base_checkpoint", "checkpoint_id"]),
    ({"base_checkpoint": {"checkpoint_id": "tiny-sd15"}}, ["body", "details", "base_checkpoint", "checkpoint_id"]),
]


async def test_what_is_wrong_with_a_request_is_said_at_the_field(world: World) -> None:
    good = await world.body()
    for change, loc in WRONG:
        top = {key: value for key, value in change.items() if key == "name"}
        body = good | top | {"details": good["details"] | {k: v for k, v in change.items() if k != "name"}}

        answer = await world.client.post("/v1/tune", json=body)

        assert answer.status_code == 422, (change, answer.text)
        detail = answer.json()["detail"]
        assert [item.keys() for item in detail] == [{"loc", "msg", "type"}], change
        assert detail[0]["loc"] == loc, change
    assert (await world.client.get("/v1/tunes")).json()["total"] == 0


async def test_one_of_many_that_take_a_name_at_once_gets_it(world: World) -> None:
    body = await world.body("dog")

    answers = await asyncio.gather(*(world.client.post("/v1/tune", json=body) for _ in range(20)))

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert "'dog' is in use by tune tune_" in refused.json()["detail"]


async def test_the_name_of_an_asset_is_taken_for_a_tune_as_well(world: World) -> None:
    asset_id = await world.add_asset("dog", "lora")

    answer = await world.client.post("/v1/tune", json=await world.body("dog"))

    assert answer.status_code == 409
    assert asset_id in answer.json()["detail"]


async def test_a_waiting_tune_is_cancelled_at_once_and_its_name_is_free(world: World) -> None:
    tune = await world.create("dog")

    answers = [await world.client.post(f"/v1/tune/{tune['id']}/cancel") for _ in range(2)]

    assert [(answer.status_code, answer.json()["status"]) for answer in answers] == [(200, "cancelled")] * 2
    assert await world.events(tune["id"]) == [(1, "tune.queued"), (2, "tune.cancelled")]
    assert await world.name_holder("dog") is None


async def test_a_trained_tune_cannot_be_cancelled(world: World) -> None:
    tune = await world.create()
    await world.train(tune["id"])

    answer = await world.client.post(f"/v1/tune/{tune['id']}/cancel")

    assert answer.status_code == 409
    assert "its LoRA is being published" in answer.json()["detail"]


async def test_a_tune_succeeds_when_its_lora_is_in_the_library(world: World) -> None:
    tune = await world.create("dog")
    await world.train(tune["id"])
    assert (await world.client.get(f"/v1/tune/{tune['id']}")).json()["status"] == "running"
    async with world.database.begin() as session:
        await names.release(session, "tune", tune["id"])
    lora_id = await world.add_asset("dog", "lora", tune_id=tune["id"])

    await Reconciler(world.database, world.service).run_once()

    shown = (await world.client.get(f"/v1/tune/{tune['id']}")).json()
    assert (shown["status"], shown["output_lora_ids"]) == ("succeeded", [lora_id])
    assert shown["succeeded_at"] is not None
    assert shown["result"]["output_assets"] == [lora_id]
    async with world.database.begin() as session:
        own_copy = await session.scalar(select(Blob.state).where(Blob.owner == Context.TUNES))
    assert own_copy == "orphaned"


async def test_a_tune_that_nobody_claims_is_said_again_once_a_bound(world: World) -> None:
    tune = await world.create("dog")
    bound_s = SchedulerSettings.model_fields["requeue_hint_s"].default
    assert await world.facts() == [("tune.queued", 1)]

    await Reconciler(world.database, world.service).run_once()
    assert await world.facts() == [("tune.queued", 1)], "it has not waited for long"

    async with world.database.begin() as session:
        await session.execute(update(Tune).values(updated_at=func.now() - timedelta(seconds=bound_s + 1)))
    for _ in range(2):
        await Reconciler(world.database, world.service).run_once()

    assert await world.facts() == [("tune.queued", 1), ("tune.queued", 1)], "the same version: it says nothing new"
    assert await world.events(tune["id"]) == [(1, "tune.queued")]


async def test_a_tune_whose_lora_cannot_be_registered_fails_and_gives_its_name_back(world: World) -> None:
    tune = await world.create("dog")
    await world.train(tune["id"])

    async with world.database.begin() as session:
        await world.service.not_registered(session, tune["id"], "its object is gone")

    shown = (await world.client.get(f"/v1/tune/{tune['id']}")).json()
    assert shown["status"] == "failed"
    assert "its object is gone" in shown["status_details"]
    assert await world.name_holder("dog") is None


async def test_a_deleted_tune_is_answered_once_more_and_gone(world: World) -> None:
    tune = await world.create("dog")

    deleted = await world.client.delete(f"/v1/tune/{tune['id']}")

    assert deleted.status_code == 200
    assert (deleted.json()["id"], deleted.json()["status"]) == (tune["id"], "cancelled")
    assert deleted.json()["deleted_at"] is not None
    assert (await world.client.get(f"/v1/tune/{tune['id']}")).status_code == 404
    assert (await world.client.get("/v1/tunes")).json()["total"] == 0
    await world.create("dog")


async def test_another_accounts_tune_does_not_exist(world: World) -> None:
    tune_id = (await world.create())["id"]

    answers = [
        await world.stranger.get(f"/v1/tune/{tune_id}"),
        await world.stranger.get(f"/v1/tune/{tune_id}/events"),
        await world.stranger.post(f"/v1/tune/{tune_id}/cancel"),
        await world.stranger.delete(f"/v1/tune/{tune_id}"),
    ]

    assert [answer.status_code for answer in answers] == [404] * 4
    assert (await world.stranger.get("/v1/tunes")).json() == {"data": [], "has_more": False, "total": 0}
    body = await world.body()
    foreign = await world.stranger.post("/v1/tune", json=body)
    assert foreign.status_code == 422


async def test_lists_are_newest_first_in_pages_and_narrowed(world: World) -> None:
    for number in range(3):
        await world.create(f"dog-{number}", trigger_words=[f"sks{number}"])

    async def listed(query: str) -> list[str]:
        return [tune["name"] for tune in (await world.client.get(f"/v1/tunes?{query}")).json()["data"]]

    page = (await world.client.get("/v1/tunes?limit=2")).json()
    assert [tune["name"] for tune in page["data"]] == ["dog-2", "dog-1"]
    assert (page["has_more"], page["total"]) == (True, 3)
    assert await listed("limit=2&offset=2") == ["dog-0"]
    assert await listed("name=dog-1") == ["dog-1"]
    assert await listed("trigger_words=sks0,sks2") == ["dog-2", "dog-0"]
    assert await listed(f"engine={SD15}&tune_type=lora_tune") == ["dog-2", "dog-1", "dog-0"]
    assert await listed("base_checkpoint=octoai:tiny-sd15&limit=1") == ["dog-2"]
    assert await listed("tune_type=text_to_speech_latent_tune") == []
    assert (await world.client.get("/v1/tunes?limit=0")).status_code == 422


async def test_the_events_of_a_tune_come_in_order_without_a_gap(world: World) -> None:
    tune = await world.create()
    await world.client.post(f"/v1/tune/{tune['id']}/cancel")

    first = (await world.client.get(f"/v1/tune/{tune['id']}/events?limit=1")).json()
    rest = (await world.client.get(f"/v1/tune/{tune['id']}/events?after=1")).json()

    assert [(event["sequence"], event["type"]) for event in first["data"]] == [(1, "tune.queued")]
    assert first["has_more"] is True
    assert [(event["sequence"], event["type"]) for event in rest["data"]] == [(2, "tune.cancelled")]
