"""The history of images: taken all or none, listed, cancelled, starred and deleted."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from shared.blobs.store import Blobs
from tests.support.inference_world import FakePainter, InferenceWorld, make_world
from tests.support.waiting import eventually


@pytest.fixture
async def world(
    database_url: str, blobs: Blobs, make_settings: Callable[..., Any], tmp_path: Path
) -> AsyncIterator[InferenceWorld]:
    async with make_world(database_url, blobs, make_settings, tmp_path, max_pixels=600 * 600) as world:
        await world.add_empty_checkpoint(alias_of="tiny-sd15")
        yield world


async def request(world: InferenceWorld, **body: Any) -> dict[str, Any]:
    answer = await world.client.post("/v1/generations", json={"engine": "sd", "request": {"prompt": "a star"}} | body)
    assert answer.status_code == 202, answer.text
    return answer.json()


async def ended(world: InferenceWorld, generation_id: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        found = (await world.client.get(f"/v1/generations/{generation_id}")).json()
        return found if found["finished_at"] else None

    return await eventually(look)


async def test_a_request_is_taken_and_drawn(world: InferenceWorld) -> None:
    taken = await request(world)
    [waiting] = taken["data"]
    async with world.worker(FakePainter()):
        drawn = await ended(world, waiting["id"])

    assert taken["group_id"] is None
    assert waiting["status"] == "queued"
    assert waiting["ahead"] == 0
    assert drawn["status"] == "succeeded"
    assert drawn["images"][0]["seed"] == waiting["request"]["seed"]
    assert drawn["request"] == waiting["request"]
