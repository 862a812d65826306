"""The image API without torch: what it accepts, what it refuses, and what it stores before a worker draws."""

import base64
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import select

from shared.blobs.collector import BlobCollector
from shared.blobs.store import Blobs
from shared.database.tables import Blob, Context
from tests.support.inference_world import SD15, FakePainter, InferenceWorld, make_world
from tests.support.waiting import eventually

CONTROLNET = "image/controlnet-sd15"


def image(size: tuple[int, int] = (512, 512), file_format: str = "PNG") -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, "teal").save(buffer, file_format)
    return base64.b64encode(buffer.getvalue()).decode()


BAD_INPUT: list[tuple[dict[str, Any], list[str], str]] = [
    ({"checkpoint": "none"}, ["checkpoint"], "none"),
    ({"loras": {"none": 1.0}}, ["loras", "none"], "none"),
    ({"vae": "none"}, ["vae"], "none"),
    ({"textual_inversions": {"none": "x"}}, ["textual_inversions", "none"], "none"),
    ({"loras": {"other-shape": 1.0}}, ["loras", "other-shape"], "sd15-other"),
    ({"loras": {"other-engine": 1.0}}, ["loras", "other-engine"], "stable-diffusion-xl"),
    ({"checkpoint": "octoai:default-sdxl"}, ["checkpoint"], SD15),
    ({"checkpoint": "octoai:refiner"}, ["checkpoint"], "refiner is for image/stable-diffusion-xl-refiner"),
    ({"width": 500, "height": 500}, ["width"], "500x500"),
    ({"width": 512}, [], "both"),
    ({"seed": [1, 2], "num_images": 1}, [], "2 seeds for 1"),
    ({"steps": 201}, ["steps"], "200"),
    ({"mask_image": "AAAA"}, [], "init_image"),
    ({"outpainting": True}, [], "init_image"),
    ({"init_image": "%%%"}, ["init_image"], "base64"),
    ({"init_image": base64.b64encode(b"GIF89a").decode()}, ["init_image"], "not PNG, JPEG, WebP or AVIF"),
    ({"init_image": image((16, 700))}, ["init_image"], "16 x 700"),
    ({"init_image": image(), "mask_image": image((256, 512))}, ["mask_image"], "aspect"),
    ({"controlnet_image": image()}, ["controlnet_image"], "/generate/controlnet-sd15"),
    ({"textual_inversions": {"a": "x", "b": "x"}}, [], "same trigger"),
    ({"no_such_field": 1}, ["no_such_field"], "Extra"),
]
"""A body, where it is wrong, and a part of the message."""


@pytest.fixture
async def world(
    database_url: str, blobs: Blobs, make_settings: Callable[..., Any], tmp_path: Path
) -> AsyncIterator[InferenceWorld]:
    async with make_world(database_url, blobs, make_settings, tmp_path, max_body_bytes=2**20, max_pixels=600 * 600) as world:
        await world.add_empty_checkpoint(alias_of="tiny-sd15")
        await world.until_listening()
        yield world


async def refused(world: InferenceWorld, engine: str = "sd", **body: object) -> tuple[int, Any]:
    answer = await world.client.post(f"/generate/{engine}", json={"prompt": "a star", **body})
    document = answer.json()
    assert answer.status_code >= 400
    if answer.status_code == 422:
        return 422, next((item["loc"][1:], item["msg"]) for item in document["detail"])
    return answer.status_code, document["code"]


async def test_an_unavailable_broker_is_a_503_with_retry_after(
    database_url: str, blobs: Blobs, make_settings: Callable[..., Any], tmp_path: Path
) -> None:
    without_broker = make_world(database_url, blobs, make_settings, tmp_path, kafka_bootstrap_servers="127.0.0.1:1")
    async with without_broker as world:
        answer = await world.client.post("/generate/sd", json={"prompt": "a star"})

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) > 0


async def test_what_is_not_offered_is_a_400_whatever_its_fields(world: InferenceWorld) -> None:
    for engine in ("svd", "sd3", "flux-dev", "flux-schnell", "ip-adapter-sdxl"):
        assert await refused(world, engine, motion_scale=0.5) == (400, "not_supported")
    assert await refused(world, "ssd") == (400, "not_supported")
    assert await refused(world, transfer_images={"me": [image()]}) == (400, "not_supported")
    for path in ("/upscaling", "/adetailer", "/background-removal", "/segment"):
        answer = await world.client.post(path, json={"init_image": "x"})
        assert (answer.status_code, answer.json()["code"]) == (400, "not_supported")
    assert (await world.client.get("/healthcheck")).status_code == 200


async def test_bad_input_is_a_422_that_names_field_and_value(world: InferenceWorld) -> None:
    await world.add_empty_checkpoint("default-sdxl", engine="image/stable-diffusion-xl-v1-0")
    await world.add_empty_checkpoint("refiner", engine="image/stable-diffusion-xl-refiner")
    await world.add_asset("other-shape", "lora", b"l", public=False, engine=SD15, shape_class="sd15-other")
    await world.add_asset("other-engine", "lora", b"m", public=False, engine="image/stable-diffusion-xl-v1-0")

    answered_otherwise: list[tuple[list[str], str, Any]] = []
    for body, loc, part in BAD_INPUT:
        answer = await refused(world, **body)
        status, found = answer
        if status != 422 or found[0] != loc or part not in found[1]:
            answered_otherwise.append((loc, part, answer))

    assert answered_otherwise == []


async def test_a_controlnet_endpoint_needs_its_image_and_prepares_it_for_canny_only(world: InferenceWorld) -> None:
    await world.add_empty_checkpoint("depth_sd15", engine=CONTROLNET)
    followed = image()

    assert (await refused(world, "controlnet-sd15"))[1][0] == ["controlnet_image"]
    assert (await refused(world, "controlnet-sd", controlnet_image=followed))[1][0] == ["controlnet"]
    wrong = await refused(world, "controlnet-sd15", controlnet_image=followed, controlnet="octoai:default-sd15")
    assert "this endpoint is for image/controlnet-sd15" in wrong[1][1]
    depth = {"controlnet_image": followed, "controlnet": "octoai:depth_sd15"}
    assert (await refused(world, "controlnet-sd15", **depth))[1][0] == ["controlnet_preprocess"]
    async with world.worker(FakePainter()) as worker:
        answer = await world.client.post(
            "/generate/controlnet-sd15", json={"prompt": "x", **depth, "controlnet_preprocess": False}
        )
    assert answer.status_code == 200, answer.text
    assert worker.name


async def test_a_body_over_the_limit_is_a_413(world: InferenceWorld) -> None:
    for announced in (True, False):
        big = b'{"prompt": "' + b"x" * 2**20 + b'"}'

        async def parts(body: bytes = big) -> AsyncIterator[bytes]:
            yield body[: 2**19]
            yield body[2**19 :]

        headers = {"Content-Type": "application/json"}
        answer = await world.client.post("/generate/sd", content=big if announced else parts(), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_the_images_of_a_request_are_stored_before_a_worker_draws_and_deleted_after_it_has_ended(
    world: InferenceWorld,
) -> None:
    generation_id = await world.submit(init_image=image(file_format="JPEG"), mask_image=image())
    generation = await world.generation(generation_id)
    keys = {generation.inputs["start"]["image"]["key"], generation.inputs["start"]["mask"]["key"]}
    collector = BlobCollector(world.database, world.blobs, Context.IMAGES, prefixes=("generations/",), grace_s=0, staging_s=3600)

    async def states() -> set[str]:
        async with world.database.begin() as session:
            return set(await session.scalars(select(Blob.state).where(Blob.key.in_(keys))))

    assert all(generation_id in key for key in keys)
    assert await collector.collect() == []
    assert all([await world.blobs.size(key) for key in keys])
    async with world.worker(FakePainter()):
        await world.finished(generation_id)

    async def collected() -> bool | None:
        await collector.collect()
        return True if await states() == {"deleted"} else None

    await eventually(collected)
    assert not any([await world.blobs.size(key) for key in keys])


async def test_a_notice_names_the_checkpoint_behind_the_default(world: InferenceWorld) -> None:
    async with world.worker(FakePainter()):
        answer = await world.client.post("/generate/sd", json={"prompt": "a star"})

    assert "octoai:default-sd15 stands for octoai:tiny-sd15" in answer.headers["X-Tunesmith-Notice"]


async def test_the_asynchronous_form_answers_at_once_with_public_urls(world: InferenceWorld) -> None:
    painter = FakePainter()
    painter.may_go_on.clear()
    asked = await world.client.post("/generate/sd", json={"prompt": "x", "seed": 5}, headers={"X-OctoAI-Async": "1"})
    assert asked.status_code == 200
    poll = asked.json()["poll_url"]
    assert poll.startswith(world.settings.public_url)
    path = poll.removeprefix(world.settings.public_url)

    waiting = (await world.client.get(path)).json()
    result = waiting["response_url"].removeprefix(world.settings.public_url)
    assert waiting["status"] == "pending"
    assert (await world.client.get(result)).status_code == 404
    async with world.worker(painter):
        await world.until_begun(painter)
        assert (await world.client.get(path)).json()["status"] == "running"
        painter.may_go_on.set()
        await world.finished(asked.json()["response_id"])
    assert (await world.client.get(path)).json()["status"] == "completed"
    assert [image["seed"] for image in (await world.client.get(result)).json()["images"]] == [5]
    # Another account cannot see it.
    assert (await world.stranger.get(path)).status_code == (await world.stranger.get(result)).status_code == 404


async def test_a_failed_response_is_completed_and_its_result_is_the_error(world: InferenceWorld) -> None:
    painter = FakePainter()
    painter.fail = [ValueError("out of memory")] * 3
    async with world.worker(painter):
        generation_id = await world.submit()
        await world.finished(generation_id)

    path = f"/generate/responses/{generation_id}"
    assert (await world.client.get(path)).json()["status"] == "completed"
    failed = await world.client.get(f"{path}/result")
    assert (failed.status_code, failed.json()["code"]) == (500, "generation_failed")


async def test_an_empty_async_header_is_off(world: InferenceWorld) -> None:
    async with world.worker(FakePainter()):
        answer = await world.client.post("/generate/sd", json={"prompt": "x"}, headers={"X-OctoAI-Async": ""})

    assert "images" in answer.json()
