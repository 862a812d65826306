"""Files of assets to take along: as they were sent, or a LoRA in another program's layout."""

import io
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from services.upload.settings import UploadSettings
from shared.blobs.collector import BlobCollector
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.formats.lora import reader
from shared.formats.lora.names import KeyFormat
from shared.formats.safetensors import read_header
from tests.support.upload_world import LORA, UploadWorld, png

LORA_DATA = {"engine": "image/stable-diffusion-v1-5", "file_format": "safetensors", "trigger_words": ["sks1"]}


@pytest.fixture
async def world(make_settings: Callable[..., UploadSettings], blobs: Blobs, database_url: str) -> AsyncIterator[UploadWorld]:
    database = Database(database_url)
    world = await UploadWorld.build(make_settings(UploadSettings), database, blobs)
    yield world
    await world.close()
    await database.close()


async def ready(world: UploadWorld, content: bytes, name: str, asset_type: str, **more: Any) -> str:
    asset_id = await world.send(content, name, asset_type, **more)
    await world.intake.check(asset_id)
    assert (await world.shown(asset_id))["status"] == "ready"
    return asset_id


async def download(world: UploadWorld, key: str, **parameters: str) -> dict[str, Any]:
    answer = await world.client.get(f"/v1/assets/{key}/download", params=parameters)
    assert answer.status_code == httpx.codes.OK, answer.text
    return answer.json()


async def fetched(link: dict[str, Any]) -> bytes:
    async with httpx.AsyncClient() as store:
        answer = await store.get(link["url"])
    assert answer.status_code == httpx.codes.OK, answer.text
    assert re.fullmatch(rf'attachment; filename="?{re.escape(link["file_name"])}"?', answer.headers["Content-Disposition"])
    assert len(answer.content) == link["size_bytes"]
    return answer.content


async def test_a_lora_comes_as_kohya_has_it(world: UploadWorld) -> None:
    await ready(world, LORA, "brush", "lora", data=LORA_DATA, description="Thick oil.")

    link = await download(world, "brush", format="kohya")

    assert link["file_name"] == "brush-kohya.safetensors"
    content = await fetched(link)
    kohya = reader.read(io.BytesIO(content))
    assert kohya.key_format is KeyFormat.KOHYA
    assert [(a.part, a.module, a.scale, a.size) for a in kohya.adapters] == [
        (a.part, a.module, a.scale, a.size) for a in reader.read(io.BytesIO(LORA)).adapters
    ]
    metadata = read_header(io.BytesIO(content)).metadata
    assert {key: value for key, value in metadata.items() if key.startswith("modelspec.")} == {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.title": "brush",
        "modelspec.trigger_phrase": "sks1",
        "modelspec.description": "Thick oil.",
    }


async def test_without_a_format_or_in_its_own_a_file_comes_as_it_was_sent(world: UploadWorld) -> None:
    await ready(world, LORA, "brush", "lora", data=LORA_DATA)
    image = png()
    await ready(world, image, "beach", "file")

    for parameters in ({}, {"format": "diffusers"}):
        link = await download(world, "brush", **parameters)
        assert (link["file_name"], await fetched(link)) == ("brush.safetensors", LORA)
    link = await download(world, "beach")
    assert (link["file_name"], await fetched(link)) == ("beach.png", image)


async def test_a_converted_file_is_made_once_and_collected_when_its_links_are_over(world: UploadWorld) -> None:
    await ready(world, LORA, "brush", "lora", data=LORA_DATA)

    await download(world, "brush", format="kohya")
    await download(world, "brush", format="kohya")

    [made] = await world.blobs.list("downloads/")
    collector = BlobCollector(world.database, world.blobs, Context.UPLOAD, prefixes=("downloads/",), grace_s=0, staging_s=60)
    assert made.key in await collector.collect()
    assert await world.blobs.list("downloads/") == []


async def test_what_cannot_be_had_says_why(world: UploadWorld) -> None:
    await ready(world, png(), "beach", "file")
    await world.create("waiting", "lora", data=LORA_DATA)

    for client, key, parameters, status, reason in (
        (world.client, "beach", {"format": "kohya"}, 422, "kohya is a layout of LoRAs, and 'beach' is a file"),
        (world.client, "beach", {"format": "onnx"}, 422, "'kohya' or 'diffusers'"),
        (world.client, "waiting", {}, 409, "is ready_to_upload and has no file to download"),
        (world.stranger, "beach", {}, 404, "no asset 'beach'"),
    ):
        answer = await client.get(f"/v1/assets/{key}/download", params=parameters)
        assert (answer.status_code, reason in answer.text) == (status, True), answer.text
