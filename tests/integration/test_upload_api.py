"""The asset library's HTTP API, in the shapes that OctoAI's clients require."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError

from services.upload.settings import UploadSettings
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from tests.support.upload_world import ORIGIN, UploadWorld, lora, png


@pytest.fixture
async def world(make_settings: Callable[..., UploadSettings], blobs: Blobs, database_url: str) -> AsyncIterator[UploadWorld]:
    database = Database(database_url)
    world = await UploadWorld.build(make_settings(UploadSettings), database, blobs)
    yield world
    await world.close()
    await database.close()


REQUIRED = {
    "id", "asset_type", "name", "description", "size_bytes", "status", "status_details", "created_at", "data", "tenant_uuid"
}  # fmt: skip


async def test_creating_returns_the_asset_and_the_url_for_its_upload(world: UploadWorld) -> None:
    created = await world.create("cat-01", description=None, url=None, data={"file_format": "jpg"})

    asset = created["asset"]
    assert re.fullmatch(r"asset_[0-9a-z]{26}", asset["id"])
    assert asset.keys() >= REQUIRED
    assert all(asset[field] is not None for field in REQUIRED)
    assert (asset["status"], asset["description"], asset["size_bytes"]) == ("ready_to_upload", "", 0)
    assert asset["data"] == {"asset_type": "file", "file_format": "jpg", "preview_url": None, "version": ""}
    assert asset["is_public"] is False
    assert created["token"] == ""
    assert created["transfer_api"]["type"] == "presigned-url"
    put_url = created["transfer_api"]["put_url"]
    assert put_url.startswith(f"{world.settings.public_url}/{world.settings.s3_bucket}/staging/file/{asset['id']}?")


async def test_sts_returns_credentials_for_the_one_object(world: UploadWorld) -> None:
    created = await world.create("style", "lora", data=SD15, transfer_api_type="sts")

    sts, asset_id = created["transfer_api"], created["asset"]["id"]
    assert (sts["type"], sts["s3_bucket"], sts["s3_key"]) == ("sts", world.blobs.bucket, f"staging/lora/{asset_id}")
    assert (sts["s3_url"], sts["s3_endpoint_url"]) == (f"s3://{sts['s3_bucket']}/{sts['s3_key']}", world.settings.public_url)
    s3 = boto3.client(
        "s3",
        endpoint_url=sts["s3_endpoint_url"],
        region_name=sts["aws_region"],
        aws_access_key_id=sts["aws_access_key_id"],
        aws_secret_access_key=sts["aws_secret_access_key"],
        aws_session_token=sts["aws_session_token"],
    )
    await asyncio.to_thread(s3.put_object, Bucket=sts["s3_bucket"], Key=sts["s3_key"], Body=lora())
    with pytest.raises(ClientError, match="AccessDenied"):
        await asyncio.to_thread(s3.put_object, Bucket=sts["s3_bucket"], Key=f"{sts['s3_key']}0", Body=lora())
    assert (await world.client.post(f"/v1/assets/{asset_id}/complete-upload", json={})).status_code == 200
    await world.intake.check(asset_id)
    assert (await world.shown("style"))["status"] == "ready"


async def test_sts_returns_a_presigned_url_where_the_store_grants_no_credentials(
    world: UploadWorld, make_settings: Callable[..., UploadSettings]
) -> None:
    settings = make_settings(UploadSettings, s3_sts_endpoint=f"{world.settings.s3_endpoint}/nothing-here")
    without = await UploadWorld.build(settings, world.database, Blobs.from_settings(settings))
    created = await without.create(transfer_api_type="sts")
    await without.close()

    assert created["transfer_api"]["type"] == "presigned-url"
    assert created["transfer_api"]["put_url"].startswith(world.settings.public_url)


async def test_completing_an_upload_twice_has_one_effect(world: UploadWorld) -> None:
    asset_id = await world.send(png())

    again = await world.client.post(f"/v1/assets/{asset_id}/complete-upload", json={})

    assert (again.status_code, again.json()) == (200, {"error": None})
    shown = await world.shown(asset_id)
    assert (shown["status"], shown["size_bytes"]) == ("uploaded", len(png()))
    assert [kind for kind, _ in await world.waiting_events()] == ["asset.created", "asset.uploaded"]


async def test_completing_without_a_file_is_refused_until_the_file_is_uploaded(world: UploadWorld) -> None:
    created = await world.create()
    path = f"/v1/assets/{created['asset']['id']}/complete-upload"

    refused = await world.client.post(path, json={})

    assert refused.status_code == 422
    assert refused.json()["detail"][0]["msg"].startswith("nothing has been uploaded for asset")
    assert (await world.shown("photo"))["status"] == "ready_to_upload"
    async with httpx.AsyncClient() as store:
        await store.put(created["transfer_api"]["put_url"], content=png())
    assert (await world.client.post(path, json={})).status_code == 200


async def test_a_file_over_the_limit_of_its_type_is_refused(
    world: UploadWorld, make_settings: Callable[..., UploadSettings]
) -> None:
    small = await UploadWorld.build(make_settings(UploadSettings, max_file_bytes=50), world.database, world.blobs)
    created = await small.create()
    async with httpx.AsyncClient() as store:
        await store.put(created["transfer_api"]["put_url"], content=png())

    refused = await small.client.post(f"/v1/assets/{created['asset']['id']}/complete-upload", json={})
    await small.close()

    assert refused.status_code == 422
    assert f"{len(png())} bytes; a file may have at most 50" in refused.json()["detail"][0]["msg"]


async def test_one_of_many_concurrent_requests_gets_a_name(world: UploadWorld) -> None:
    body = {"name": "cat", "asset_type": "file", "data": {"asset_type": "file"}}

    answers = await asyncio.gather(*(world.client.post("/v1/assets", json=body) for _ in range(20)))

    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert "'cat' is in use by asset asset_" in refused.json()["detail"]


async def test_two_accounts_may_use_the_same_name(world: UploadWorld) -> None:
    await world.create("cat")

    answer = await world.stranger.post("/v1/assets", json={"name": "cat", "asset_type": "file", "data": {"asset_type": "file"}})

    assert answer.status_code == 200


SD15 = {"engine": "image/stable-diffusion-v1-5"}
WRONG: list[tuple[dict[str, object], int, list[str] | None]] = [
    ({"name": "a b"}, 422, ["body", "name"]),
    ({"name": ""}, 422, ["body", "name"]),
    ({"name": "a" * 201}, 422, ["body", "name"]),
    ({"asset_type": "song"}, 422, ["body", "asset_type"]),
    ({"data": {"asset_type": "lora"}}, 422, ["body", "data", "asset_type"]),
    ({"data": {"file_format": "mp3"}}, 422, ["body", "data", "file_format"]),
    ({"asset_type": "lora", "data": {}}, 422, ["body", "data", "engine"]),
    ({"asset_type": "lora", "data": {"engine": "text/llama-2-7b"}}, 422, ["body", "data", "engine"]),
    ({"asset_type": "latent", "data": {}}, 422, ["body", "asset_type"]),
    ({"asset_type": "vae", "data": {}}, 422, ["body", "data", "engine"]),
    ({"asset_type": "vae", "data": SD15 | {"file_format": "pt"}}, 422, ["body", "data", "file_format"]),
    ({"asset_type": "checkpoint", "data": SD15 | {"data_type": "fp8"}}, 422, ["body", "data", "data_type"]),
    ({"data": {"file_format": "txt"}}, 422, ["body", "data", "file_format"]),
    ({"url": ""}, 422, ["body", "url"]),
    ({"url": "https://huggingface.co/" + "x" * 2100}, 422, ["body", "url"]),
    ({"url": "https://example.org/x.safetensors"}, 422, ["body", "url"]),
    ({"url": "http://huggingface.co/x.safetensors"}, 422, ["body", "url"]),
    ({"url": "https://huggingface.co:8443/x"}, 422, ["body", "url"]),
    ({"url": "https://huggingface.co.example.org/x"}, 422, ["body", "url"]),
    ({"url": "https://user:secret@huggingface.co/x"}, 422, ["body", "url"]),
    ({"url": "https://127.0.0.1/x"}, 422, ["body", "url"]),
    ({"hf_repo": "someone"}, 422, ["body", "hf_repo"]),
    ({"hf_repo": "someone/something"}, 422, ["body", "hf_repo"]),
    ({"hf_token_secret": "hf_x"}, 422, ["body", "hf_token_secret"]),
    ({"transfer_api_type": "pigeon"}, 422, ["body", "transfer_api_type"]),
    ({"is_public": True}, 403, None),
]


async def test_a_wrong_field_is_refused_with_its_location(world: UploadWorld) -> None:
    for change, status, loc in WRONG:
        answer = await world.client.post("/v1/assets", json={"name": "cat", "asset_type": "file", "data": {}} | change)

        assert answer.status_code == status, (change, answer.text)
        detail = answer.json()["detail"]
        if loc is None:
            assert isinstance(detail, str), change
        else:
            assert [item.keys() for item in detail] == [{"loc", "msg", "type"}], change
            assert detail[0]["loc"] == loc
    assert await world.waiting_events() == []


async def test_a_value_that_cannot_be_stored_is_refused_at_its_field(world: UploadWorld) -> None:
    data = {"asset_type": "lora", "engine": "image/stable-diffusion-v1-5", "trigger_words": ["sks1", "a\0"]}
    for body, loc in (
        ({"description": "a\0b"}, ["description"]),
        ({"asset_type": "lora", "data": data}, ["data", "trigger_words", 1]),
    ):
        answer = await world.client.post("/v1/assets", json={"name": "x", "asset_type": "file", "data": {}} | body)

        assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", *loc])
        assert "NUL" in answer.json()["detail"][0]["msg"]


async def test_a_deleted_asset_is_not_found_and_its_name_is_free(world: UploadWorld) -> None:
    asset_id = (await world.create("cat"))["asset"]["id"]

    deleted = await world.client.delete(f"/v1/assets/{asset_id}")

    assert deleted.status_code == 200
    assert deleted.json().keys() == {"id", "deleted_at"}
    assert (await world.client.get(f"/v1/assets/{asset_id}")).status_code == 404
    assert (await world.client.delete(f"/v1/assets/{asset_id}")).status_code == 404
    await world.create("cat")
    assert [kind for kind, _ in await world.waiting_events()] == ["asset.created", "asset.deleted", "asset.created"]


async def test_the_asset_of_another_account_is_not_found(world: UploadWorld) -> None:
    asset_id = await world.send(png(), "cat")

    answers = [
        await world.stranger.get(f"/v1/assets/{asset_id}"),
        await world.stranger.get("/v1/assets/cat"),
        await world.stranger.delete(f"/v1/assets/{asset_id}"),
        await world.stranger.post(f"/v1/assets/{asset_id}/complete-upload", json={}),
    ]

    assert [answer.status_code for answer in answers] == [404, 404, 404, 404]
    assert (await world.stranger.get("/v1/assets")).json() == {"data": [], "has_more": False, "total": 0}


async def test_lists_are_newest_first_in_pages(world: UploadWorld) -> None:
    for number in range(5):
        await world.create(f"cat-{number}")

    first = (await world.client.get("/v1/assets?limit=2")).json()
    last = (await world.client.get("/v1/assets?limit=2&offset=4")).json()

    assert [asset["name"] for asset in first["data"]] == ["cat-4", "cat-3"]
    assert (first["has_more"], first["total"]) == (True, 5)
    assert [asset["name"] for asset in last["data"]] == ["cat-0"]
    assert (last["has_more"], last["total"]) == (False, 5)
    assert (await world.client.get("/v1/assets?limit=101")).status_code == 422


NARROWED = {
    "name=cat": ["cat"],
    "name=ca": [],
    "asset_type=file&asset_type=lora": ["style-xl", "style", "cat"],
    "asset_type=file%2Clora": ["style-xl", "style", "cat"],
    "asset_type=lora": ["style-xl", "style"],
    "engine=image/stable-diffusion-v1-5": ["style"],
    "engine_type=image": ["style-xl", "style"],
    "engine_type=text": [],
    "file_format=safetensors": ["style-xl", "style"],
    "data_type=fp16": ["style-xl", "style"],
    "is_public=true": [],
    "owner=octoai": [],
}


async def test_lists_are_narrowed_by_each_filter(world: UploadWorld) -> None:
    await world.create("cat")
    await world.create("style", "lora", data={"engine": "image/stable-diffusion-v1-5"})
    await world.create("style-xl", "lora", data={"engine": "image/stable-diffusion-xl-v1-0"})

    for query, names in NARROWED.items():
        found = (await world.client.get(f"/v1/assets?{query}")).json()

        assert [asset["name"] for asset in found["data"]] == names, query
        assert found["total"] == len(names), query


async def test_a_list_finds_words_and_statuses_and_sorts(world: UploadWorld) -> None:
    await world.create("b-cat")
    words = {"engine": "image/stable-diffusion-v1-5", "trigger_words": ["sks1"]}
    await world.create("A-style", "lora", data=words)
    await world.intake.check(await world.send(png(), "ready"))

    async def names(**query: str) -> list[str]:
        answer = await world.client.get("/v1/assets", params=query)
        assert answer.status_code == httpx.codes.OK, answer.text
        return [asset["name"] for asset in answer.json()["data"]]

    assert await names(q="CAT") == ["b-cat"]
    assert await names(q="sks") == ["A-style"]
    assert await names(q="%") == [], "a % is no wildcard"
    assert await names(status="ready") == ["ready"]
    assert await names(sort="oldest") == ["b-cat", "A-style", "ready"]
    assert await names(sort="name") == ["A-style", "b-cat", "ready"]
    assert (await names(sort="largest"))[0] == "ready"
    assert (await world.client.get("/v1/assets?sort=age")).status_code == httpx.codes.UNPROCESSABLE_ENTITY


async def test_a_list_can_be_narrowed_to_ids(world: UploadWorld) -> None:
    ids = [(await world.create(f"cat-{number}"))["asset"]["id"] for number in range(3)]

    found = (await world.client.get("/v1/assets", params={"asset_ids": f"{ids[0]},{ids[2]}"})).json()

    assert [asset["id"] for asset in found["data"]] == [ids[2], ids[0]]


async def test_a_ready_image_can_be_downloaded_and_an_unchecked_one_cannot(world: UploadWorld) -> None:
    asset_id = await world.send(png(), "cat")
    before = (await world.client.get("/v1/assets/cat?transfer_api_type=sts")).json()

    await world.intake.check(asset_id)

    after = (await world.client.get("/v1/assets/cat")).json()
    listed = (await world.client.get("/v1/assets?get_preview_urls=true")).json()["data"][0]
    assert before["transfer_api"] == {"type": "presigned-url", "put_url": "", "get_url": ""}
    async with httpx.AsyncClient() as store:
        for url in (after["transfer_api"]["get_url"], listed["data"]["preview_url"]):
            got = await store.get(url)
            assert (got.status_code, got.headers["content-type"]) == (200, "image/png")


async def test_an_unknown_key_is_refused(world: UploadWorld) -> None:
    unknown = await world.client.get("/v1/assets", headers={"Authorization": "Bearer nothing"})

    assert unknown.status_code == 401


async def test_an_admin_may_make_an_asset_public(world: UploadWorld) -> None:
    body = {"asset_type": "lora", "data": {"engine": "image/stable-diffusion-v1-5"}, "name": "style", "is_public": True}
    created = (await world.admin.post("/v1/assets", json=body)).json()
    async with httpx.AsyncClient() as store:
        await store.put(created["transfer_api"]["put_url"], content=lora())
    asset_id = created["asset"]["id"]
    await world.admin.post(f"/v1/assets/{asset_id}/complete-upload", json={})
    await world.intake.check(asset_id)

    assert (await world.stranger.get(f"/v1/assets/{asset_id}")).json()["asset"]["status"] == "ready"
    assert (await world.stranger.get("/v1/assets?is_public=true")).json()["total"] == 1
    assert (await world.stranger.delete(f"/v1/assets/{asset_id}")).status_code == 404


async def test_every_type_can_be_created_with_all_fields_that_clients_send(world: UploadWorld) -> None:
    data = {
        "file": {"file_format": "jpeg", "version": None},
        "lora": SD15 | {"data_type": "fp16", "file_format": "safetensors", "trigger_words": ["sks1"], "checkpoint": None},
        "checkpoint": SD15 | {"data_type": "fp32"},
        "vae": SD15 | {"data_type": "int8"},
        "textual_inversion": SD15 | {"trigger_words": None},
    }
    common = {"url": None, "hf_repo": None, "hf_token_secret": None, "is_public": None, "skip_validation": True}
    for asset_type, sent in data.items():
        for transfer in (None, "presigned-url", "gcp-oauth", "any"):
            name = f"{asset_type}-{transfer}"
            created = await world.create(name, asset_type, data=sent, description=None, transfer_api_type=transfer, **common)

            assert (created["asset"]["status"], created["asset"]["file_structure"]) == ("ready_to_upload", "single_file")
            assert created["asset"]["data"]["asset_type"] == asset_type
            assert created["transfer_api"]["type"] == "presigned-url"
    words = await world.client.get("/v1/assets?asset_type=textual_inversion&limit=1")
    assert words.json()["data"][0]["data"]["trigger_words"] == []


async def test_requests_are_accepted_in_the_form_of_each_client(world: UploadWorld) -> None:
    await world.create("cat")
    headers = {"Accept": "", "Content-Type": "application/json", "X-OctoAI-Async": ""}

    found = await world.client.get(f"{ORIGIN}//v1/assets/cat", headers=headers)
    public = await world.client.get("/v1/assets/octoai%3Anothing", headers=headers)
    deleted = await world.client.request("DELETE", f"{ORIGIN}//v1/assets/{found.json()['asset']['id']}", headers=headers)

    assert (found.status_code, found.json()["asset"]["name"]) == (200, "cat")
    assert (public.status_code, public.json()["detail"]) == (404, "there is no asset 'octoai:nothing' in this account")
    assert deleted.status_code == 200
