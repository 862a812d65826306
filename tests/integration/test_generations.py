"""The history of images: taken all or none, listed, cancelled, starred and deleted."""

import base64
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from shared.blobs.collector import BlobCollector
from shared.blobs.store import Blobs
from shared.database.tables import Context
from tests.support.inference_world import FakePainter, InferenceWorld, make_world
from tests.support.waiting import eventually
from tests.support.world import SD15

PATH = "/v1/generations"


@pytest.fixture
async def world(
    database_url: str, blobs: Blobs, make_settings: Callable[..., Any], tmp_path: Path
) -> AsyncIterator[InferenceWorld]:
    async with make_world(database_url, blobs, make_settings, tmp_path, max_pixels=600 * 600) as world:
        await world.add_empty_checkpoint(alias_of="tiny-sd15")
        yield world


async def taken(world: InferenceWorld, prompt: str = "a star", **body: Any) -> list[dict[str, Any]]:
    """Send a request, whose fields are those of `request` unless they are the body's, and return what was taken."""
    top = {name: body.pop(name) for name in ("variants", "group") if name in body}
    answer = await world.client.post(PATH, json={"engine": "sd", "request": {"prompt": prompt} | body} | top)
    assert answer.status_code == 202, answer.text
    return answer.json()["data"]


async def shown(world: InferenceWorld, generation_id: str) -> dict[str, Any]:
    return (await world.client.get(f"{PATH}/{generation_id}")).json()


async def ended(world: InferenceWorld, generation_id: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        found = await shown(world, generation_id)
        return found if found["finished_at"] else None

    return await eventually(look)


async def drawn(world: InferenceWorld, **body: Any) -> list[dict[str, Any]]:
    """Return requests whose images are there."""
    requests = await taken(world, **body)
    async with world.worker(FakePainter()):
        return [await ended(world, one["id"]) for one in requests]


async def collect(world: InferenceWorld) -> None:
    collector = BlobCollector(world.database, world.blobs, Context.IMAGES, prefixes=("generations/",), grace_s=0, staging_s=3600)
    await collector.collect()


async def listed(world: InferenceWorld, **query: Any) -> list[str]:
    answer = await world.client.get(PATH, params=query)
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["data"]]


def encoded(size: tuple[int, int] = (512, 512)) -> str:
    out = io.BytesIO()
    Image.new("RGB", size, "teal").save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


async def test_a_request_is_drawn_and_can_be_repeated(world: InferenceWorld) -> None:
    [waiting] = await taken(world, num_images=2, image_encoding="png")
    async with world.worker(FakePainter()):
        done = await ended(world, waiting["id"])

    assert (waiting["status"], waiting["ahead"], waiting["images"]) == ("queued", 0, [])
    assert (done["status"], done["ahead"], done["error"]) == ("succeeded", None, None)
    assert [image["seed"] for image in done["images"]] == done["request"]["seed"]
    assert (done["request"]["steps"], done["request"]["checkpoint"]) == (30, "octoai:default-sd15")
    [repeat] = await taken(world, **done["request"])
    assert repeat["request"] == done["request"]


async def test_images_and_thumbnails_are_fetched_by_their_urls(world: InferenceWorld) -> None:
    [done] = await drawn(world, image_encoding="png")
    [image] = done["images"]
    async with httpx.AsyncClient() as client:
        full, small = [await client.get(image[name]) for name in ("url", "thumbnail_url")]

    assert Image.open(io.BytesIO(full.content)).size == (image["width"], image["height"]) == (512, 512)
    assert Image.open(io.BytesIO(small.content)).size == (384, 384)
    assert small.headers["Content-Type"] == "image/webp"


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        ({"variants": [{}, {"loras": {"none": 1.0}}]}, ["body", "variants", 1, "loras", "none"]),
        ({"variants": [{"steps": 0}]}, ["body", "variants", 0, "steps"]),
        ({"variants": [{"init_image": "x"}]}, ["body", "variants", 0, "init_image"]),
        ({"variants": [{"no_such_field": 1}]}, ["body", "variants", 0, "no_such_field"]),
        ({"request": {"prompt": "x", "loras": {"none": 1.0}}}, ["body", "request", "loras", "none"]),
        ({"request": {"prompt": "x", "init_image": "%%%"}}, ["body", "request", "init_image"]),
        ({"variants": [{}] * 65}, ["body", "variants"]),
        ({"variants": [{}] * 3, "group": {"kind": "grid", "axes": [{"field": "steps", "values": [1, 2]}]}}, ["body"]),
    ],
)
async def test_a_wrong_variant_is_named_and_nothing_is_taken(world: InferenceWorld, body: dict[str, Any], loc: list[Any]) -> None:
    answer = await world.client.post(PATH, json={"engine": "sd", "request": {"prompt": "x"}} | body)

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == loc
    assert await listed(world) == []


async def test_an_engine_that_is_not_served_is_refused(world: InferenceWorld) -> None:
    answer = await world.client.post(PATH, json={"engine": "flux", "request": {"prompt": "x"}})

    assert (answer.status_code, answer.json()["code"]) == (400, "not_supported")


async def test_the_variants_of_a_grid_have_its_cells_and_the_same_seed(world: InferenceWorld) -> None:
    axes = [{"field": "steps", "values": [10, 20]}, {"field": "cfg_scale", "values": [5, 7, 9]}]
    variants = [{"steps": steps, "cfg_scale": scale} for scale in (5, 7, 9) for steps in (10, 20)]
    data = await taken(world, variants=variants, group={"kind": "grid", "axes": axes})

    assert [one["cell"] for one in data] == [[0, 0], [1, 0], [0, 1], [1, 1], [0, 2], [1, 2]]
    assert [(one["request"]["steps"], one["request"]["cfg_scale"]) for one in data] == [tuple(v.values()) for v in variants]
    assert len({one["request"]["seed"] for one in data}) == 1
    assert {one["group_id"] for one in data} == {data[0]["group_id"]}
    assert await listed(world, group=data[0]["group_id"]) == sorted((one["id"] for one in data), reverse=True)
    assert [one["ahead"] for one in data] == list(range(6))


async def test_variants_without_a_group_have_seeds_of_their_own(world: InferenceWorld) -> None:
    data = await taken(world, variants=[{}] * 8)

    assert len({one["request"]["seed"] for one in data}) > 1
    assert [one["cell"] for one in data] == [None] * 8


async def test_the_images_of_a_request_are_stored_once_for_its_variants(world: InferenceWorld) -> None:
    data = await taken(world, init_image=encoded(), variants=[{"strength": 0.5}, {"strength": 0.7}])

    assert {one["inputs"]["init_image_url"] for one in data} == {data[0]["inputs"]["init_image_url"]}
    assert "init_image" not in data[0]["request"]
    async with httpx.AsyncClient() as client:
        assert Image.open(io.BytesIO((await client.get(data[0]["inputs"]["init_image_url"])).content)).size == (512, 512)


async def test_the_quota_counts_the_images_of_all_variants(world: InferenceWorld) -> None:
    body = {"engine": "sd", "request": {"prompt": "x", "num_images": 16}, "variants": [{}] * 17}
    answer = await world.client.post(PATH, json=body)

    assert (answer.status_code, answer.json()["code"]) == (429, "limit_exceeded")
    assert await listed(world) == []


async def test_a_repeat_with_its_key_takes_nothing_new(world: InferenceWorld) -> None:
    body = {"engine": "sd", "request": {"prompt": "x"}, "variants": [{}, {"steps": 5}]}
    first, again = [await world.client.post(PATH, json=body, headers={"Idempotency-Key": "one"}) for _ in range(2)]

    assert again.headers["Idempotency-Replayed"] == "true"
    assert [one["id"] for one in again.json()["data"]] == [one["id"] for one in first.json()["data"]]
    assert len(await listed(world)) == 2


async def test_the_history_is_paged_and_searched(world: InferenceWorld) -> None:
    await world.add_asset("dog", "lora", b"x", public=False, engine=SD15)
    cat, dog, both = [
        (await taken(world, prompt, **more))[0]["id"]
        for prompt, more in (("a 100% cat", {}), ("a dog", {"loras": {"dog": 1}}), ("a cat and a dog", {}))
    ]
    await world.client.patch(f"{PATH}/{dog}", json={"starred": True})

    assert await listed(world, limit=2) == [both, dog]
    assert await listed(world, limit=2, before=dog) == [cat]
    assert await listed(world, q="CAT") == [both, cat]
    assert await listed(world, q="100%") == [cat]
    assert await listed(world, lora="dog") == [dog]
    assert await listed(world, checkpoint="octoai:default-sd15") == [both, dog, cat]
    assert await listed(world, checkpoint="other") == []
    assert (await listed(world, starred=True), await listed(world, starred=False)) == ([dog], [both, cat])


async def test_the_models_of_a_request_say_whether_they_still_exist(world: InferenceWorld) -> None:
    lora = await world.add_asset("dog", "lora", b"x", public=False, engine=SD15)
    [one] = await taken(world, loras={"dog": 0.5})
    async with world.database.begin() as session:
        found = await session.merge(lora)
        found.status = "rejected"
    base, dog = (await shown(world, one["id"]))["models"]

    assert (base["name"], base["kind"], base["exists"]) == ("octoai:default-sd15", "checkpoint", True)
    assert (dog["name"], dog["kind"], dog["weight"], dog["exists"]) == ("dog", "lora", 0.5, False)


async def test_a_waiting_request_is_cancelled(world: InferenceWorld) -> None:
    [one] = await taken(world)
    answers = [await world.client.post(f"{PATH}/{one['id']}/cancel") for _ in range(2)]

    assert [(answer.status_code, answer.json()["status"]) for answer in answers] == [(200, "cancelled")] * 2
    painter = FakePainter()
    async with world.worker(painter):
        [other] = await taken(world)
        await ended(world, other["id"])
    assert len(painter.drawn) == 1


async def test_a_cancel_stops_the_draw_and_the_worker_goes_on(world: InferenceWorld) -> None:
    painter = FakePainter()
    painter.may_go_on.clear()
    [one] = await taken(world)
    async with world.worker(painter):
        await world.until_begun(painter)
        assert (await world.client.post(f"{PATH}/{one['id']}/cancel")).json()["status"] == "cancelled"
        [other] = await taken(world)
        # The painter is held until its hook raises.
        await eventually(lambda: _count(painter, 2))
        painter.may_go_on.set()
        assert (await ended(world, other["id"]))["status"] == "succeeded"

    assert ((await shown(world, one["id"]))["status"], (await shown(world, one["id"]))["images"]) == ("cancelled", [])


async def _count(painter: FakePainter, number: int) -> bool | None:
    return len(painter.drawn) == number or None


async def test_what_has_ended_cannot_be_cancelled(world: InferenceWorld) -> None:
    [done] = await drawn(world)
    answer = await world.client.post(f"{PATH}/{done['id']}/cancel")

    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


async def test_a_star_keeps_the_images_until_it_is_taken_away(world: InferenceWorld) -> None:
    [kept], [lost] = await drawn(world, init_image=encoded()), await drawn(world)
    starred = (await world.client.patch(f"{PATH}/{kept['id']}", json={"starred": True})).json()
    await collect(world)

    assert (starred["starred"], starred["kept_until"]) == (True, None)
    still = await shown(world, kept["id"])
    assert still["images"][0]["url"]
    assert still["images"][0]["thumbnail_url"]
    assert still["inputs"]["init_image_url"]
    assert (await shown(world, lost["id"]))["images"][0]["url"] is None
    refused = await world.client.patch(f"{PATH}/{lost['id']}", json={"starred": True})
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    unstarred = (await world.client.patch(f"{PATH}/{kept['id']}", json={"starred": False})).json()
    await collect(world)
    assert unstarred["kept_until"] > kept["kept_until"]
    assert (await shown(world, kept["id"]))["images"][0]["url"] is None


async def test_a_starred_variant_keeps_the_image_that_it_shares(world: InferenceWorld) -> None:
    one, other = await drawn(world, init_image=encoded(), variants=[{"strength": 0.5}, {"strength": 0.7}])
    for starred in (one, other):
        await world.client.patch(f"{PATH}/{starred['id']}", json={"starred": True})
    assert (await world.client.delete(f"{PATH}/{one['id']}")).status_code == 204
    await collect(world)

    assert (await shown(world, other["id"]))["inputs"]["init_image_url"]


async def test_a_deleted_request_and_its_images_are_gone(world: InferenceWorld) -> None:
    [done] = await drawn(world)
    async with httpx.AsyncClient() as client:
        assert (await world.client.delete(f"{PATH}/{done['id']}")).status_code == 204
        await collect(world)
        assert (await client.get(done["images"][0]["url"])).status_code == 404

    assert (await world.client.get(f"{PATH}/{done['id']}")).status_code == 404
    assert await listed(world) == []


async def test_a_failed_request_says_why(world: InferenceWorld) -> None:
    painter = FakePainter()
    painter.fail = [ValueError("x")] * 3
    [one] = await taken(world)
    async with world.worker(painter):
        done = await ended(world, one["id"])

    assert (done["status"], done["error"]["code"]) == ("failed", "generation_failed")
    assert "again" in done["error"]["message"]


async def test_an_image_is_returned_as_a_png_with_its_settings(world: InferenceWorld) -> None:
    await world.add_asset("dog", "lora", b"x", public=False, engine=SD15)
    [done] = await drawn(world, loras={"dog": 0.5}, negative_prompt="a cat", steps=20, seed=7, sampler="K_EULER", cfg_scale=6.5)
    answer = await world.client.get(f"{PATH}/{done['id']}/images/0/png")
    image = Image.open(io.BytesIO(answer.content))

    assert image.format == "PNG"
    prompt, negative, settings = image.info["parameters"].split("\n")
    assert (prompt, negative) == ("a star <lora:dog:0.5>", "Negative prompt: a cat")
    assert settings.startswith("Steps: 20, Sampler: K_EULER, CFG scale: 6.5, Seed: 7, Size: 512x512, Model hash: ")
    assert 'Model: "octoai:default-sd15"' in settings
    assert (await world.client.get(f"{PATH}/{done['id']}/images/1/png")).status_code == 404


async def test_the_old_routes_do_not_show_the_history(world: InferenceWorld) -> None:
    [one] = await taken(world)

    assert (await world.client.get(f"/generate/responses/{one['id']}")).status_code == 404


async def test_the_engines_say_what_they_take(world: InferenceWorld) -> None:
    engines = {one["name"]: one for one in (await world.client.get("/v1/engines")).json()["data"]}

    assert list(engines) == ["sd", "sdxl", "ssd", "controlnet-sd15", "controlnet-sdxl"]
    assert (engines["sd"]["available"], engines["sdxl"]["available"]) == (True, False)
    assert {"width": 1024, "height": 1024} in engines["sdxl"]["sizes"]
    assert engines["sd"]["limits"] | {"body_bytes": 0} == {
        "steps": 200,
        "num_images": 16,
        "loras": 16,
        "cfg_scale": 50.0,
        "variants": 64,
        "body_bytes": 0,
    }
    for engine in engines.values():
        size = {name: engine["recommended"][name] for name in ("width", "height")}
        assert size in engine["sizes"]
