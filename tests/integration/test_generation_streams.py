"""The progress of generations as server-sent events, with previews."""

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from services.inference.generations.answers import Answers
from services.inference.generations.stream import GenerationStreams
from services.inference.inputs import DrawnImage, Inputs
from services.inference.worker.materials import Materials
from services.inference.worker.steps import OnStep
from shared.background import Background
from shared.blobs.store import Blobs
from shared.database.notifications import GENERATIONS, Notifications
from tests.support.inference_world import FakePainter, InferenceWorld, make_world

_BOUND_S = 60


@pytest.fixture
async def world(
    database_url: str, blobs: Blobs, make_settings: Callable[..., Any], tmp_path: Path
) -> AsyncIterator[InferenceWorld]:
    async with make_world(database_url, blobs, make_settings, tmp_path) as world:
        await world.add_empty_checkpoint(alias_of="tiny-sd15")
        yield world


class NoisyPainter(FakePainter):
    """Reports two steps of noise, and is held in between until it may go on."""

    def draw(self, inputs: Inputs, materials: Materials, on_step: OnStep) -> tuple[list[DrawnImage], list[str]]:
        on_step(1, 2, torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(1)))
        return super().draw(inputs, materials, on_step)


@asynccontextmanager
async def streamed(world: InferenceWorld, ids: list[str], **settings: Any) -> AsyncIterator[AsyncIterator[bytes]]:
    """Read a stream as its route does; httpx cannot, since it collects what an application in this process sends."""
    chosen = world.settings.model_copy(update={"event_poll_s": 60.0} | settings)
    notifications = Notifications(chosen, GENERATIONS)
    streams = GenerationStreams(world.database, Answers(world.blobs, 60), notifications, chosen)
    async with Background() as background, asyncio.timeout(_BOUND_S):
        background.run("notifications", notifications.run)
        await notifications.listening.wait()
        yield await streams.frames(world.account_id, ids, stopping=asyncio.Event())


async def events(frames: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, dict[str, Any], str | None]]:
    """Yield name, data and id of each event."""
    async for frame in frames:
        lines = dict(line.split(": ", 1) for line in frame.decode().strip().splitlines() if not line.startswith(":"))
        if "data" in lines:
            yield lines["event"], json.loads(lines["data"]), lines.get("id")


async def taken(world: InferenceWorld, **top: Any) -> list[str]:
    answer = await world.client.post("/v1/generations", json={"engine": "sd", "request": {"prompt": "a star"}} | top)
    assert answer.status_code == 202, answer.text
    return [one["id"] for one in answer.json()["data"]]


async def test_a_stream_shows_the_queue_the_steps_a_preview_and_the_end(world: InferenceWorld) -> None:
    [one] = await taken(world)
    painter = NoisyPainter()
    painter.may_go_on.clear()
    async with streamed(world, [one]) as frames:
        told = events(frames)
        name, queued, _ = await anext(told)
        async with world.worker(painter):
            # Notifications alone wake the stream: it polls once a minute.
            previewed = await _first(told, "preview")
            painter.may_go_on.set()
            done = [event async for event in told][-1]

    assert (name, queued["status"], queued["ahead"], queued["step"]) == ("progress", "queued", 0, 0)
    assert (previewed["status"], previewed["step"], previewed["steps"]) == ("running", 1, 2)
    data = base64.b64decode(previewed["preview"].removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(data)).size == (64, 64)
    assert len(previewed["preview"]) <= 6 * 1024 + 64
    assert (done[0], done[1]["status"], done[2]) == ("done", "succeeded", "end")


async def _first(told: AsyncIterator[tuple[str, dict[str, Any], str | None]], field: str) -> dict[str, Any]:
    """Return the data of the first event in which the field is set."""
    async for _, data, _ in told:
        if data.get(field):
            return data
    pytest.fail(f"the stream ended without {field}")


async def test_a_page_that_is_opened_late_sees_how_each_ended(world: InferenceWorld) -> None:
    one, other = await taken(world, variants=[{}, {"steps": 5}])
    async with world.worker(FakePainter()), streamed(world, [one, other], event_poll_s=0.2) as frames:
        [_ async for _ in events(frames)]
    async with streamed(world, [one, other]) as frames:
        late = [(name, data["status"], last) async for name, data, last in events(frames)]

    assert late == [("done", "succeeded", one), ("done", "succeeded", "end")]


async def test_a_cancel_and_a_delete_end_a_stream(world: InferenceWorld) -> None:
    one, other = await taken(world, variants=[{}, {}])
    async with streamed(world, [one, other]) as frames:
        told = events(frames)
        assert [(await anext(told))[1]["id"] for _ in range(2)] == [one, other]
        await world.client.post(f"/v1/generations/{one}/cancel")
        await world.client.delete(f"/v1/generations/{other}")
        rest = [(name, data["id"], data["status"]) async for name, data, _ in told if name == "done"]

    assert rest == [("done", one, "cancelled")]


async def test_a_stream_that_has_ended_answers_a_reconnect_with_204(world: InferenceWorld) -> None:
    [one] = await taken(world)
    url = f"/v1/generations/stream?ids={one}"

    assert (await world.client.get(url, headers={"Last-Event-ID": "end"})).status_code == 204
    await world.client.post(f"/v1/generations/{one}/cancel")
    answer = await world.client.get(url)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert "event: done" in answer.text


@pytest.mark.parametrize(("query", "status"), [("", 422), ("ids=a&group=b", 422), ("ids=none", 404), ("group=none", 404)])
async def test_a_stream_of_nothing_is_refused(world: InferenceWorld, query: str, status: int) -> None:
    assert (await world.client.get(f"/v1/generations/stream?{query}")).status_code == status
