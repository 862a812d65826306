"""Datasets: kept while a tune is prepared, and changed only on the version that was read."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from services.scheduler.settings import SchedulerSettings
from shared.blobs.store import Blobs
from tests.support.scheduler_world import SchedulerWorld, make_world

BODY: dict[str, Any] = {
    "name": "dog-sks1",
    "trigger_word": "sks1",
    "subject_class": "dog",
    "files": [{"file_id": "asset_1", "file_name": "beach.jpg", "caption": "a sks1 dog on a beach"}],
    "settings": {"steps": 500},
}


@pytest.fixture
async def world(
    make_settings: Callable[..., SchedulerSettings], database_url: str, blobs: Blobs
) -> AsyncIterator[SchedulerWorld]:
    async with make_world(make_settings, database_url, blobs) as world:
        yield world


async def _made(world: SchedulerWorld, **changes: Any) -> dict[str, Any]:
    answer = await world.client.post("/v1/datasets", json=BODY | changes)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_dataset_is_kept_as_it_was_sent(world: SchedulerWorld) -> None:
    made = await _made(world)

    shown = (await world.client.get(f"/v1/datasets/{made['id']}")).json()

    assert shown == made
    assert shown | BODY == shown
    assert (shown["version"], shown["tunes"]) == (1, [])


async def test_an_empty_dataset_can_be_kept(world: SchedulerWorld) -> None:
    answer = await world.client.post("/v1/datasets", json={})

    assert answer.status_code == 201
    assert answer.json()["files"] == []


async def test_a_change_names_the_version_that_it_was_made_on(world: SchedulerWorld) -> None:
    made = await _made(world)
    path = f"/v1/datasets/{made['id']}"

    first = await world.client.put(path, json=BODY | {"name": "first"}, headers={"If-Match": "1"})
    second = await world.client.put(path, json=BODY | {"name": "second"}, headers={"If-Match": '"1"'})

    assert (first.status_code, first.json()["version"]) == (200, 2)
    assert (second.status_code, second.json()["code"]) == (412, "changed")
    assert (await world.client.get(path)).json()["name"] == "first"


async def test_a_change_without_a_version_is_refused(world: SchedulerWorld) -> None:
    path = f"/v1/datasets/{(await _made(world))['id']}"

    for headers in ({}, {"If-Match": "*"}, {"If-Match": "0"}):
        assert (await world.client.put(path, json=BODY, headers=headers)).status_code == 422


async def test_the_last_changed_is_listed_first(world: SchedulerWorld) -> None:
    old, new = await _made(world, name="old"), await _made(world, name="new")
    listed = (await world.client.get("/v1/datasets?limit=1")).json()
    assert ([one["id"] for one in listed["data"]], listed["has_more"], listed["total"]) == ([new["id"]], True, 2)

    await world.client.put(f"/v1/datasets/{old['id']}", json=BODY, headers={"If-Match": "1"})

    assert [one["id"] for one in (await world.client.get("/v1/datasets")).json()["data"]] == [old["id"], new["id"]]


async def test_settings_have_at_most_16_kib(world: SchedulerWorld) -> None:
    await _made(world, settings={"note": "x" * 16_000})

    refused = await world.client.post("/v1/datasets", json=BODY | {"settings": {"note": "x" * 16_400}})

    assert refused.status_code == 422
    assert "16384" in refused.text


async def test_a_tune_names_the_dataset_that_it_was_started_from(world: SchedulerWorld) -> None:
    dataset_id = (await _made(world))["id"]

    tune = await world.create(top={"dataset_id": dataset_id})

    assert tune["dataset_id"] == dataset_id
    shown = (await world.client.get(f"/v1/datasets/{dataset_id}")).json()
    assert shown["tunes"] == [{"id": tune["id"], "name": tune["name"], "status": "pending"}]
    assert (await world.client.delete(f"/v1/datasets/{dataset_id}")).status_code == 204
    assert (await world.client.get(f"/v1/tune/{tune['id']}")).status_code == 200


async def test_a_dataset_of_another_account_does_not_exist(world: SchedulerWorld) -> None:
    dataset_id = (await _made(world))["id"]
    path = f"/v1/datasets/{dataset_id}"

    assert (await world.stranger.get(path)).status_code == 404
    assert (await world.stranger.put(path, json=BODY, headers={"If-Match": "1"})).status_code == 404
    assert (await world.stranger.delete(path)).status_code == 404
    assert (await world.stranger.get("/v1/datasets")).json()["total"] == 0
    body = await world.body() | {"dataset_id": dataset_id}
    refused = await world.stranger.post("/v1/tune", json=body)
    assert refused.status_code == 422
    assert (await world.client.get(path)).status_code == 200
