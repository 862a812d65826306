"""The tune API: the shapes that OctoAI's clients need, and what queues, cancels and ends a tune."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from services.scheduler.service import TuneService
from services.scheduler.settings import SchedulerSettings
from services.scheduler.watch import Reaper, Reconciler
from shared.accounts import names
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Account, Asset, Blob, Context, Tune
from shared.engines import Engine
from shared.ids import new_id
from tests.support.scheduler_world import SchedulerWorld, make_world
from tests.support.trainer_world import claim_next
from tests.support.world import SD15


@pytest.fixture
async def world(
    make_settings: Callable[..., SchedulerSettings], database_url: str, blobs: Blobs
) -> AsyncIterator[SchedulerWorld]:
    async with make_world(make_settings, database_url, blobs) as world:
        yield world


async def test_a_new_tune_is_queued_and_its_answer_is_complete(world: SchedulerWorld) -> None:
    image = await world.add_asset("photo")

    tune = await world.create(files=[{"file_id": image}], seed=None, tune_type="lora_tune")

    assert re.fullmatch(r"tune_[0-9a-z]{26}", tune["id"])
    assert (tune["status"], tune["status_details"], tune["description"]) == ("pending", "", "")
    assert (tune["tune_type"], tune["tenant_id"]) == ("lora_tune", str(world.account_id))
    assert (tune["output_lora_ids"], tune["result"], tune["succeeded_at"], tune["deleted_at"]) == ([], None, None, None)
    details = tune["details"]
    assert details["tune_type"] == "lora_tune"
    assert details["base_checkpoint"]["engine"] == SD15
    assert details["base_checkpoint"]["name"] == "tiny-sd15"
    assert details["files"] == [{"file_id": image, "caption": "sks1", "regularization": False}]
    assert details["trigger_words"] == ["sks1"]
    assert (await world.row(tune["id"])).state == "queued"
    assert await world.events(tune["id"]) == [(1, "tune.queued")]
    assert await world.name_holder("sks1-dog") == "tune"


async def test_a_tune_waits_for_its_files_and_is_queued_without_their_event(world: SchedulerWorld) -> None:
    uploaded = await world.add_asset("photo", status="uploaded")
    tune = await world.create(files=[{"file_id": uploaded}])
    assert (await world.row(tune["id"])).state == "waiting_files"

    await world.verdict(uploaded, "ready")
    await Reconciler(world.database, world.service).run_once()

    assert (await world.row(tune["id"])).state == "queued"
    shown = (await world.client.get(f"/v1/tune/{tune['id']}")).json()
    assert shown["status"] == "pending"


async def test_a_tune_with_a_rejected_file_fails_unless_it_continues_on_rejection(world: SchedulerWorld) -> None:
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
    assert "not an image" in refused.json()["detail"][0]["msg"]


WRONG: list[tuple[dict[str, Any], list[str | int]]] = [
    ({"name": "a b"}, ["body", "name"]),
    ({"files": []}, ["body", "details", "files"]),
    ({"files": [{"file_id": "asset_unknown"}]}, ["body", "details", "files", 0, "file_id"]),
    ({"steps": 0}, ["body", "details", "steps"]),
    ({"steps": 10**9}, ["body", "details", "steps"]),
    ({"trigger_words": []}, ["body", "details", "trigger_words"]),
    ({"trigger_words": ["a", "b"]}, ["body", "details", "trigger_words"]),
    ({"trigger_words": [" "]}, ["body", "details", "trigger_words"]),
    ({"engine": "image/stable-diffusion-xl-v1-0"}, ["body", "details", "engine"]),
    (
        {"base_checkpoint": {"checkpoint_id": "octoai:tiny-sd15", "engine": "image/flux-dev"}},
        ["body", "details", "base_checkpoint", "engine"],
    ),
    ({"tune_type": "text_to_speech_rvc_tune"}, ["body", "details", "tune_type"]),
    ({"rank": 129}, ["body", "details", "rank"]),
    ({"learning_rate": 0.2}, ["body", "details", "learning_rate"]),
    ({"optimizer": "magic"}, ["body", "details", "optimizer"]),
    ({"resolution": 256}, ["body", "details", "resolution"]),
    ({"validation_prompts": ["a"] * 5}, ["body", "details", "validation_prompts"]),
    ({"train_text_encoder": False, "text_encoder_learning_rate": 0.1}, ["body", "details", "text_encoder_learning_rate"]),
    ({"webhook": "ftp://example.com"}, ["body", "webhook"]),
    ({"webhook": "http://192.168.0.1/hook"}, ["body", "webhook"]),
    ({"webhook": "https://example.com", "webhook_events_filter": ["everything"]}, ["body", "webhook_events_filter", 0]),
    ({"seed": 2**32}, ["body", "details", "seed"]),
    ({"base_checkpoint": {"checkpoint_id": "octoai:none"}}, ["body", "details", "base_checkpoint", "checkpoint_id"]),
    ({"base_checkpoint": {"checkpoint_id": "tiny-sd15"}}, ["body", "details", "base_checkpoint", "checkpoint_id"]),
]


async def test_an_error_of_a_request_names_its_field(world: SchedulerWorld) -> None:
    good = await world.body()
    for change, loc in WRONG:
        top = {key: value for key, value in change.items() if key in {"name", "webhook", "webhook_events_filter"}}
        body = good | top | {"details": good["details"] | {k: v for k, v in change.items() if k not in top}}

        answer = await world.client.post("/v1/tune", json=body)

        assert answer.status_code == 422, (change, answer.text)
        detail = answer.json()["detail"]
        assert [item.keys() for item in detail] == [{"loc", "msg", "type"}], change
        assert detail[0]["loc"] == loc, change
    assert (await world.client.get("/v1/tunes")).json()["total"] == 0


@pytest.mark.parametrize("engine", [Engine.SDXL_REFINER, Engine.CONTROLNET_SDXL, Engine.SSD])
async def test_a_checkpoint_that_cannot_be_tuned_is_refused_with_its_engine(world: SchedulerWorld, engine: Engine) -> None:
    data = {"asset_type": "checkpoint", "engine": engine, "native_size_px": 64, "shape_class": "other"}
    await world.add_asset("other", "checkpoint", account_id=world.platform_id, is_public=True, data=data)
    body = await world.body(base_checkpoint={"checkpoint_id": "octoai:other"})

    answer = await world.client.post("/v1/tune", json=body)

    [fault] = answer.json()["detail"]
    assert (answer.status_code, fault["loc"][-1]) == (422, "checkpoint_id")
    assert f"'other' is for {engine}; only checkpoints for" in fault["msg"]


async def test_one_of_many_simultaneous_requests_for_a_name_gets_it(world: SchedulerWorld) -> None:
    body = await world.body("dog")

    answers = await asyncio.gather(*(world.client.post("/v1/tune", json=body) for _ in range(20)))

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert "'dog' is in use by tune tune_" in refused.json()["detail"]


async def test_simultaneous_requests_do_not_exceed_the_accounts_limit_of_tunes(world: SchedulerWorld) -> None:
    async with world.database.begin() as session:
        await session.execute(update(Account).where(Account.id == world.account_id).values(max_unfinished_tunes=2))
    bodies = [await world.body(f"dog-{number}") for number in range(6)]

    answers = await asyncio.gather(*(world.client.post("/v1/tune", json=body) for body in bodies))

    assert sorted(answer.status_code for answer in answers) == [201] * 2 + [429] * 4
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert "max_unfinished_tunes: 2 tunes have not ended; 2 are allowed" in refused.json()["detail"]
    assert refused.headers["Retry-After"] == "60"
    taken = next(answer.json()["id"] for answer in answers if answer.status_code == 201)
    await world.client.post(f"/v1/tune/{taken}/cancel")
    await world.create("cat")


async def test_a_tune_cannot_have_the_name_of_an_asset(world: SchedulerWorld) -> None:
    asset_id = await world.add_asset("dog", "lora")

    answer = await world.client.post("/v1/tune", json=await world.body("dog"))

    assert answer.status_code == 409
    assert asset_id in answer.json()["detail"]


async def test_a_queued_tune_is_cancelled_at_once_and_its_name_is_free(world: SchedulerWorld) -> None:
    tune = await world.create("dog")

    answers = [await world.client.post(f"/v1/tune/{tune['id']}/cancel") for _ in range(2)]

    assert [(answer.status_code, answer.json()["status"]) for answer in answers] == [(200, "cancelled")] * 2
    assert await world.events(tune["id"]) == [(1, "tune.queued"), (2, "tune.cancelled")]
    assert await world.name_holder("dog") is None


async def test_a_trained_tune_cannot_be_cancelled(world: SchedulerWorld) -> None:
    tune = await world.create()
    await world.train(tune["id"])

    answer = await world.client.post(f"/v1/tune/{tune['id']}/cancel")

    assert answer.status_code == 409
    assert "its LoRA is being published" in answer.json()["detail"]


async def test_a_tune_succeeds_when_its_lora_is_in_the_library(world: SchedulerWorld) -> None:
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


async def test_the_event_of_an_unclaimed_tune_is_republished_once_in_requeue_hint_s(world: SchedulerWorld) -> None:
    tune = await world.create("dog")
    bound_s = SchedulerSettings.model_fields["requeue_hint_s"].default

    async def published() -> list[tuple[str, int]]:
        return [(kind, event["version"]) for kind, event in await world.waiting_events()]

    assert await published() == [("tune.queued", 1)]

    await Reconciler(world.database, world.service).run_once()
    assert await published() == [("tune.queued", 1)], "it is not queued for long enough"

    async with world.database.begin() as session:
        await session.execute(update(Tune).values(updated_at=func.now() - timedelta(seconds=bound_s + 1)))
    for _ in range(2):
        await Reconciler(world.database, world.service).run_once()

    assert await published() == [("tune.queued", 1), ("tune.queued", 1)], "the same version, since the tune has not changed"
    assert await world.events(tune["id"]) == [(1, "tune.queued")]


async def test_a_tune_whose_lora_cannot_be_registered_fails_and_its_name_is_free(world: SchedulerWorld) -> None:
    tune = await world.create("dog")
    await world.train(tune["id"])

    async with world.database.begin() as session:
        await world.service.fail_publishing(session, tune["id"], "its object is gone")

    shown = (await world.client.get(f"/v1/tune/{tune['id']}")).json()
    assert shown["status"] == "failed"
    assert "its object is gone" in shown["status_details"]
    assert await world.name_holder("dog") is None


async def test_a_deleted_tune_is_in_the_answer_and_then_not_found(world: SchedulerWorld) -> None:
    tune = await world.create("dog")

    deleted = await world.client.delete(f"/v1/tune/{tune['id']}")

    assert deleted.status_code == 200
    assert (deleted.json()["id"], deleted.json()["status"]) == (tune["id"], "cancelled")
    assert deleted.json()["deleted_at"] is not None
    assert (await world.client.get(f"/v1/tune/{tune['id']}")).status_code == 404
    assert (await world.client.get("/v1/tunes")).json()["total"] == 0
    await world.create("dog")


async def test_a_tune_of_another_account_is_not_found(world: SchedulerWorld) -> None:
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


async def test_lists_are_newest_first_paged_and_filtered(world: SchedulerWorld) -> None:
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
    assert await listed("base_checkpoint=tiny-sd15&limit=1") == ["dog-2"]
    assert await listed("tune_type=text_to_speech_latent_tune") == []
    assert (await world.client.get("/v1/tunes?limit=0")).status_code == 422


async def test_the_events_of_a_tune_come_in_order_without_a_gap(world: SchedulerWorld) -> None:
    tune = await world.create()
    await world.client.post(f"/v1/tune/{tune['id']}/cancel")

    first = (await world.client.get(f"/v1/tune/{tune['id']}/events?limit=1")).json()
    rest = (await world.client.get(f"/v1/tune/{tune['id']}/events?after=1")).json()

    assert [(event["sequence"], event["type"]) for event in first["data"]] == [(1, "tune.queued")]
    assert first["has_more"] is True
    assert [(event["sequence"], event["type"]) for event in rest["data"]] == [(2, "tune.cancelled")]


async def test_a_get_may_have_a_content_type_and_a_cancel_no_body(world: SchedulerWorld) -> None:
    tune = await world.create()

    got = await world.client.get(f"/v1/tune/{tune['id']}", headers={"Content-Type": "application/json", "Accept": ""})
    cancelled = await world.client.post(f"/v1/tune/{tune['id']}/cancel", headers={"Content-Type": "application/json"})

    assert (got.status_code, cancelled.status_code) == (200, 200)


async def test_additional_fields_of_old_clients_are_accepted(world: SchedulerWorld) -> None:
    """The body of OctoAI's guide: `tune_type` at the top, a name of the checkpoint, and null for what the server chooses."""
    base = {"checkpoint_id": "octoai:tiny-sd15", "name": "a name of the client's own", "engine": None}
    top = {"tune_type": "lora_tune", "description": None, "continue_on_rejection": None, "unknown": 1}

    tune = await world.create(base_checkpoint=base, resize_images=None, seed=None, engine=SD15, top=top)

    assert tune["details"]["base_checkpoint"] == {
        "checkpoint_id": tune["details"]["base_checkpoint"]["checkpoint_id"],
        "engine": SD15,
        "name": "tiny-sd15",
    }
    assert tune["details"]["resize_images"] is False
    assert isinstance(tune["details"]["seed"], int)


async def test_the_options_of_a_tune_are_stored_for_its_trainer_and_in_its_answer(world: SchedulerWorld) -> None:
    chosen = {
        "rank": 4,
        "alpha": 8.0,
        "learning_rate": 5e-4,
        "optimizer": "adafactor",
        "batch_size": 2,
        "resolution": 96,
        "train_text_encoder": True,
        "text_encoder_learning_rate": 1e-4,
        "validation_prompts": ["a photo of sks1 on a beach"],
        "checkpoint_every_steps": 20,
    }

    tune = await world.create(**chosen)

    assert {name: tune["details"][name] for name in chosen} == chosen
    assert (await world.row(tune["id"])).parameters == chosen


async def test_the_result_lists_the_files_that_are_left_out_as_soon_as_there_is_one(world: SchedulerWorld) -> None:
    good, bad, late = await world.add_asset("good"), await world.add_asset("bad", status="error"), new_id("photo")
    slow = await world.add_asset(late, status="uploaded")
    files = [{"file_id": file} for file in (good, bad, slow)]
    tune = await world.create(files=files, top={"continue_on_rejection": True})
    assert tune["result"]["rejected_assets"] == [bad]
    assert tune["result"]["unready_assets"] == [slow]

    impatient = TuneService(world.settings.model_copy(update={"files_timeout_s": 1e-6}), world.blobs)
    async with world.database.begin() as session:
        await impatient.queue_or_fail_by_verdicts(session, tune["id"])

    shown = (await world.client.get(f"/v1/tune/{tune['id']}")).json()
    assert (await world.row(tune["id"])).state == "queued"
    assert shown["result"] == {
        "number_of_available_assets": 1,
        "output_assets": [],
        "rejected_assets": [bad],
        "unready_assets": [slow],
    }


async def test_a_tune_succeeds_even_if_its_lora_is_deleted_before_its_event_is_handled(world: SchedulerWorld) -> None:
    tune = await world.create("dog")
    await world.train(tune["id"])
    async with world.database.begin() as session:
        await names.release(session, "tune", tune["id"])
    lora_id = await world.add_asset("dog", "lora", tune_id=tune["id"])
    async with world.database.begin() as session:
        gone = {"status": "deleted", "blob_key": None, "deleted_at": func.now()}
        await session.execute(update(Asset).where(Asset.id == lora_id).values(gone))

    await Reconciler(world.database, world.service).run_once()

    shown = (await world.client.get(f"/v1/tune/{tune['id']}")).json()
    assert (shown["status"], shown["output_lora_ids"]) == ("succeeded", [lora_id])


async def test_the_reaper_leaves_leases_alone_for_one_lease_after_its_start_and_after_an_outage(world: SchedulerWorld) -> None:
    tune_id = (await world.create())["id"]
    await claim_next(world.database)
    async with world.database.begin() as session:
        await session.execute(update(Tune).values(lease_expires_at=func.now() - timedelta(seconds=1)))
    now_s = 0.0
    reaper = Reaper(world.database, lease_s=30.0, clock=lambda: now_s)

    assert await reaper.run_once() == []
    now_s = 29.0
    reaper._database = unavailable = Database("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    with pytest.raises(OSError, match="Connect call failed"):
        await reaper.run_once()
    await unavailable.close()
    reaper._database = world.database
    now_s = 31.0
    assert await reaper.run_once() == [], "the outage ended less than one lease ago"
    now_s = 61.0
    assert await reaper.run_once() == [tune_id]
    assert (await world.row(tune_id)).state == "queued"
