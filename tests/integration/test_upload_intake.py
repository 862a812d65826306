"""Intake: an upload becomes ready or is rejected with the reason, and only its clean copy is used."""

import io
import pickle
import zipfile
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from PIL import Image
from sqlalchemy import update

from services.upload.intake.check import Intake
from services.upload.settings import UploadSettings
from shared.accounts import quotas
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Asset
from shared.errors import LimitError
from shared.formats import ldm_layout
from shared.formats.ldm_layout import TextShape, UNetShape, VaeShape
from tests.support.upload_world import UploadWorld, jpeg, lora, png, safetensors

SD15 = {"engine": "image/stable-diffusion-v1-5"}


@pytest.fixture
async def world(make_settings: Callable[..., UploadSettings], blobs: Blobs, database_url: str) -> AsyncIterator[UploadWorld]:
    database = Database(database_url)
    world = await UploadWorld.build(make_settings(UploadSettings), database, blobs)
    yield world
    await world.close()
    await database.close()


async def test_an_image_becomes_ready_as_a_clean_copy(world: UploadWorld) -> None:
    asset_id = await world.send(png((80, 64)) + b"and something behind it")

    await world.intake.check(asset_id)

    row = await world.row(asset_id)
    assert (row.status, row.data["file_format"], row.data["width"], row.data["height"]) == ("ready", "png", 80, 64)
    assert row.blob_key is not None
    copy = await world.blobs.get_bytes(row.blob_key, max_bytes=10_000)
    assert b"something" not in copy
    assert Image.open(io.BytesIO(copy)).size == (80, 64)
    assert row.copy_bytes == len(copy)
    assert await world.blob_state(row.blob_key) == "committed"
    assert await world.blob_state(row.staging_key) == "orphaned"
    kind, event = (await world.waiting_events())[-1]
    assert (kind, event["asset_id"], event["version"], event["tune_id"]) == ("asset.ready", asset_id, 3, None)


async def test_an_image_comes_back_to_its_account_as_it_was_sent_and_to_others_clean(world: UploadWorld) -> None:
    sent = png((80, 64)) + b"and something behind it"
    asset_id = await world.send(sent)
    await world.intake.check(asset_id)
    async with world.database.begin() as session:
        await session.execute(update(Asset).where(Asset.id == asset_id).values(is_public=True))

    answers = [(await client.get(f"/v1/assets/{asset_id}")).json() for client in (world.client, world.stranger)]

    async with httpx.AsyncClient() as store:
        files = [await store.get(answer["transfer_api"]["get_url"]) for answer in answers]
    own, others = (file.content for file in files)
    assert own == sent
    assert others != sent
    assert b"something" not in others
    assert [answer["asset"]["size_bytes"] for answer in answers] == [len(own), len(others)]
    assert {file.headers["content-type"] for file in files} == {"image/png"}


async def test_the_copies_of_a_deleted_image_are_orphaned_together(world: UploadWorld) -> None:
    asset_id = await world.send(jpeg())
    await world.intake.check(asset_id)
    row = await world.row(asset_id)
    assert [await world.blob_state(key) for key in (row.blob_key, row.original_key)] == ["committed"] * 2

    await world.client.delete(f"/v1/assets/{asset_id}")

    assert [await world.blob_state(key) for key in (row.blob_key, row.original_key)] == ["orphaned"] * 2


async def test_a_quota_counts_an_image_and_its_copy(world: UploadWorld) -> None:
    asset_id = await world.send(jpeg())
    await world.intake.check(asset_id)
    row = await world.row(asset_id)
    assert row.copy_bytes > 0
    small = UploadSettings.model_validate(
        world.settings.model_dump() | {"max_stored_bytes": row.size_bytes + row.copy_bytes + 99}
    )

    async with world.database.begin() as session:
        await quotas.admit_bytes(session, world.account_id, small, 99)
        with pytest.raises(LimitError, match=f"{row.size_bytes + row.copy_bytes} bytes are stored and 100 more are needed"):
            await quotas.admit_bytes(session, world.account_id, small, 100)


async def test_an_image_that_is_scaled_down_says_so(world: UploadWorld) -> None:
    world.intake = Intake(
        world.database, world.blobs, UploadSettings.model_validate(world.settings.model_dump() | {"max_pixels": 10_000})
    )
    asset_id = await world.send(png((200, 100)))

    await world.intake.check(asset_id)

    shown = await world.shown(asset_id)
    assert shown["status"] == "ready"
    assert shown["status_details"] == "scaled down from 200 x 100 px to 141 x 70 px, the most that is stored"
    assert (shown["data"]["width"], shown["data"]["height"]) == (141, 70)


async def test_a_file_that_is_no_image_is_rejected_with_the_reason(world: UploadWorld) -> None:
    asset_id = await world.send(b"GIF89a" + bytes(100))

    await world.intake.check(asset_id)

    shown = await world.shown(asset_id)
    assert (shown["status"], shown["status_details"]) == (
        "rejected",
        "the file is a GIF image, not PNG, JPEG, WebP or AVIF; save the image as one of them",
    )
    kind, event = (await world.waiting_events())[-1]
    assert (kind, event["reason"]) == (
        "asset.rejected",
        "the file is a GIF image, not PNG, JPEG, WebP or AVIF; save the image as one of them",
    )
    completed = await world.client.post(f"/v1/assets/{asset_id}/complete-upload", json={})
    assert completed.status_code == 409


async def test_checking_an_upload_twice_gives_one_verdict(world: UploadWorld) -> None:
    asset_id = await world.send(png())

    await world.intake.check(asset_id)
    first = await world.row(asset_id)
    await world.intake.check(asset_id)

    assert (await world.row(asset_id)).blob_key == first.blob_key
    assert [kind for kind, _ in await world.waiting_events()].count("asset.ready") == 1


async def test_bytes_that_are_uploaded_after_the_verdict_are_not_used(world: UploadWorld) -> None:
    created = await world.create("style", "lora", data=SD15)
    put_url, asset_id = created["transfer_api"]["put_url"], created["asset"]["id"]
    async with httpx.AsyncClient() as store:
        await store.put(put_url, content=lora())
        await world.client.post(f"/v1/assets/{asset_id}/complete-upload", json={})
        await world.intake.check(asset_id)
        await store.put(put_url, content=b"something else")

    row = await world.row(asset_id)
    assert row.blob_key is not None
    assert await world.blobs.get_bytes(row.blob_key, max_bytes=100_000) == lora()


async def test_an_asset_deleted_during_its_intake_stays_deleted(world: UploadWorld) -> None:
    asset_id = await world.send(png())
    inspect = world.intake._inspect

    async def inspect_and_delete(*arguments: object) -> object:
        accepted = await inspect(*arguments)  # pyright: ignore[reportArgumentType]
        await world.client.delete(f"/v1/assets/{asset_id}")
        return accepted

    world.intake._inspect = inspect_and_delete  # pyright: ignore[reportAttributeAccessIssue]
    await world.intake.check(asset_id)

    row = await world.row(asset_id)
    assert (row.status, row.blob_key) == ("deleted", None)
    assert [item.key for item in await world.blobs.list("assets/") if await world.blob_state(item.key) != "orphaned"] == []


async def test_a_lora_becomes_ready_with_the_data_of_its_header(world: UploadWorld) -> None:
    metadata = {"trigger_word": "sks1", "shape_class": "sd15-3f2a9c1d", "base_sha256": "ab" * 32}
    asset_id = await world.send(lora(rank=8, metadata=metadata), "style", "lora", data=SD15)

    await world.intake.check(asset_id)

    row = await world.row(asset_id)
    assert row.status == "ready", row.status_details
    assert row.data == {
        "asset_type": "lora",
        "engine": "image/stable-diffusion-v1-5",
        "file_format": "safetensors",
        "data_type": "fp16",
        "trigger_words": ["sks1"],
        "checkpoint": None,
        "base_sha256": "ab" * 32,
        "shape_class": "sd15-3f2a9c1d",
        "rank": 8,
        "key_format": "diffusers",
    }
    assert row.blob_key is not None
    assert row.blob_key.startswith(f"assets/{asset_id}/")


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"lora": 1}))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps({"lora_A": list(range(1000))}), "not safetensors"),
        (_zip(), "not safetensors"),
        (
            lora(features=2048),
            "data.engine is image/stable-diffusion-v1-5, but the file is a LoRA for image/stable-diffusion-xl",
        ),
        (safetensors({"model.weight": [4, 4]}), "has no LoRA weights"),
        (lora()[:-10], "it is truncated, or has bytes after its end"),
    ],
    ids=["pickle", "zip", "other engine", "no lora", "truncated"],
)
async def test_a_file_that_is_no_lora_of_its_engine_is_rejected(world: UploadWorld, content: bytes, reason: str) -> None:
    asset_id = await world.send(content, "style", "lora", data=SD15)

    await world.intake.check(asset_id)

    shown = await world.shown(asset_id)
    assert shown["status"] == "rejected"
    assert reason in shown["status_details"]


async def test_a_lora_of_kohya_becomes_ready_with_its_trigger_word(world: UploadWorld) -> None:
    notes = {"ss_tag_frequency": '{"5_sks": {"sks1 dog": 5}}', "ss_dataset_dirs": '{"5_sks": {"img_count": 5}}'}
    asset_id = await world.send(lora(metadata=notes), "style", "lora", data=SD15)

    await world.intake.check(asset_id)

    shown = await world.shown("style")
    assert (shown["status"], shown["data"]["trigger_words"], shown["data"]["rank"]) == ("ready", ["sks1 dog"], 4)


async def test_a_textual_inversion_becomes_ready_with_the_data_of_its_file(world: UploadWorld) -> None:
    content = safetensors({"<sks1>": [2, 768]}, dtype="F32")
    asset_id = await world.send(content, "word", "textual_inversion", data=SD15)

    await world.intake.check(asset_id)

    shown = await world.shown("word")
    assert shown["status"] == "ready", shown["status_details"]
    wanted = {"trigger_words": ["<sks1>"], "widths": [768], "vectors": 2, "data_type": "fp32"}
    assert shown["data"].items() >= wanted.items()


async def test_the_trigger_word_is_the_name_of_the_asset_where_the_file_has_none(world: UploadWorld) -> None:
    asset_id = await world.send(safetensors({"emb_params": [2, 768]}), "my-word", "textual_inversion", data=SD15)

    await world.intake.check(asset_id)

    assert (await world.shown("my-word"))["data"]["trigger_words"] == ["my-word"]


async def test_a_textual_inversion_for_another_engine_is_rejected(world: UploadWorld) -> None:
    content = safetensors({"clip_l": [1, 768], "clip_g": [1, 1280]})
    asset_id = await world.send(content, "word", "textual_inversion", data=SD15)

    await world.intake.check(asset_id)

    assert "the file is a textual inversion for image/stable-diffusion-xl-v1-0" in (await world.shown("word"))["status_details"]


async def test_a_file_that_is_no_vae_is_rejected_with_the_reason(world: UploadWorld) -> None:
    asset_id = await world.send(lora(), "decoder", "vae", data=SD15)

    await world.intake.check(asset_id)

    shown = await world.shown("decoder")
    assert (shown["status"], "is not a VAE of Stable Diffusion" in shown["status_details"]) == ("rejected", True)


async def test_a_vae_becomes_ready_with_the_data_of_its_file(world: UploadWorld) -> None:
    shapes = ldm_layout.vae(VaeShape(latent_channels=4, channels=(8, 16), resnets=1, middle_attention=True, quant_convs=True))
    asset_id = await world.send(safetensors({name: list(shape) for name, shape in shapes.items()}), "decoder", "vae", data=SD15)

    await world.intake.check(asset_id)

    shown = await world.shown("decoder")
    assert shown["status"] == "ready", shown["status_details"]
    assert shown["data"].items() >= {"factor": 2, "latent_channels": 4, "data_type": "fp16"}.items()


async def test_an_image_that_the_safety_checker_refuses_is_rejected_with_the_reason(
    world: UploadWorld, make_settings: Callable[..., UploadSettings]
) -> None:
    settings = make_settings(UploadSettings, safety_checker="tests.support.safety_checkers:NoRed", safety_threshold=0.9)
    guarded = Intake(world.database, world.blobs, settings)
    good, bad = await world.send(png(colour="teal"), "good"), await world.send(png(colour="red"), "bad")

    await guarded.check(good)
    await guarded.check(bad)

    refused = await world.shown("bad")
    assert (await world.shown("good"))["status"] == "ready"
    assert (refused["status"], refused["status_details"]) == (
        "rejected",
        "the safety checker refuses the image: its score is 1.00, from 0 (safe) to 1 (unsafe)",
    )
    assert (await world.waiting_events())[-1][0] == "asset.rejected"


def _single_file(**without: str) -> dict[str, list[int]]:
    """Return the shapes of a small SD 1.5 in the layout of Stable Diffusion's own releases."""
    parts = {
        "model.diffusion_model.": ldm_layout.unet(UNetShape(4, (32, 64), 1, (0, 1), 1, 32, None, False)),
        "first_stage_model.": ldm_layout.vae(VaeShape(4, (32, 32), 1, False, True)),
        "cond_stage_model.transformer.": ldm_layout.clip(TextShape(514, 16, 32, 64, 1)),
    }
    shapes = {f"{prefix}{name}": list(shape) for prefix, names in parts.items() for name, shape in names.items()}
    return {name: shape for name, shape in shapes.items() if name not in without.values()}


async def test_a_single_file_checkpoint_becomes_ready_with_the_data_of_its_file(world: UploadWorld) -> None:
    asset_id = await world.send(safetensors(_single_file(), {"modelspec.resolution": "96x96"}), "mine", "checkpoint", data=SD15)

    await world.intake.check(asset_id)

    row = await world.row(asset_id)
    assert (row.status, row.status_details) == ("ready", "")
    assert row.data["shape_class"].startswith("sd15-")
    fields = ("native_size_px", "text_widths", "latent_channels", "vae_factor", "data_type")
    assert [row.data[field] for field in fields] == [96, [32], 4, 2, "fp16"]


@pytest.mark.parametrize(
    ("engine", "without", "reason"),
    [
        (
            "image/stable-diffusion-xl-v1-0",
            "",
            "data.engine is image/stable-diffusion-xl-v1-0, but the file is a checkpoint for",
        ),
        ("image/stable-diffusion-v1-5", "model.diffusion_model.out.2.bias", "UNet differs from Stable Diffusion's releases"),
    ],
)
async def test_a_single_file_checkpoint_of_another_engine_or_layout_is_rejected(
    world: UploadWorld, engine: str, without: str, reason: str
) -> None:
    content = safetensors(_single_file(without=without))
    asset_id = await world.send(content, "mine", "checkpoint", data={"engine": engine})

    await world.intake.check(asset_id)

    shown = await world.shown(asset_id)
    assert shown["status"] == "rejected"
    assert reason in shown["status_details"]
