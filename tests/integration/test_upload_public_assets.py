"""Public checkpoints: registered once, and switched when their bytes change; an alias shares the bytes of its target."""

import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from deploy.local import checkpoints
from deploy.local.checkpoints import SHIPPED
from services.upload import public_assets
from services.upload.settings import UploadSettings
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.errors import InvalidError, NotFoundError
from shared.formats import checkpoint
from tests.support.upload_world import UploadWorld

DEFAULT_SDXL = "asset_01hdpjv7bxe1n99eazrv23ca1k"


@pytest.fixture
async def world(make_settings: Callable[..., UploadSettings], blobs: Blobs, database_url: str) -> AsyncIterator[UploadWorld]:
    database = Database(database_url)
    world = await UploadWorld.build(make_settings(UploadSettings), database, blobs)
    yield world
    await world.close()
    await database.close()


def packed_checkpoint(tmp_path: Path, version: bytes = b"first") -> Path:
    """Pack the shipped SD 1.5 checkpoint with a file that tells its version."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(SHIPPED / "tiny-sd15", folder, dirs_exist_ok=True)
    (folder / "scheduler" / "version.txt").write_bytes(version)
    checkpoint.pack(folder, tmp_path / "checkpoint.tar")
    return tmp_path / "checkpoint.tar"


async def test_public_assets_that_old_sdks_cannot_read_are_listed_only_on_request(world: UploadWorld, tmp_path: Path) -> None:
    checkpoint.pack(SHIPPED / "tiny-canny-sd15", tmp_path / "canny.tar")
    base = await public_assets.register_checkpoint(world.database, world.blobs, packed_checkpoint(tmp_path), name="tiny-sd15")
    canny = await public_assets.register_checkpoint(world.database, world.blobs, tmp_path / "canny.tar", name="canny")

    async def listed(query: str) -> list[str]:
        return [asset["id"] for asset in (await world.client.get(f"/v1/assets?{query}")).json()["data"]]

    assert await listed("owner=octoai") == await listed("is_public=true") == [base]
    assert await listed("owner=octoai&engine=image/controlnet-sd15") == [canny]
    assert await listed("owner=octoai&engine_type=image") == [canny, base]
    assert await listed("owner=octoai&name=canny") == await listed(f"owner=octoai&asset_ids={canny}") == [canny]


async def test_every_account_can_use_a_registered_checkpoint(world: UploadWorld, tmp_path: Path) -> None:
    path = packed_checkpoint(tmp_path)

    asset_id = await public_assets.register_checkpoint(world.database, world.blobs, path, name="tiny-sd15")

    shown = await world.shown("octoai:tiny-sd15")
    assert (shown["id"], shown["status"], shown["is_public"]) == (asset_id, "ready", True)
    assert shown["data"]["engine"] == "image/stable-diffusion-v1-5"
    assert shown["data"]["native_size_px"] == 64
    assert shown["data"]["shape_class"].startswith("sd15-")
    assert (await world.client.get("/v1/assets/octoai%3Atiny-sd15")).json()["asset"]["id"] == asset_id
    assert (await world.shown(asset_id))["name"] == "tiny-sd15"
    assert [a["id"] for a in (await world.client.get("/v1/assets?owner=octoai")).json()["data"]] == [asset_id]
    row = await world.row(asset_id)
    assert await world.blobs.get_bytes(row.blob_key or "", max_bytes=32 << 20) == path.read_bytes()
    # The name belongs to the platform's account alone.
    assert (await world.client.get("/v1/assets/tiny-sd15")).status_code == 404
    assert (await world.client.get("/v1/assets/studio:tiny-sd15")).status_code == 404
    assert (await world.client.delete(f"/v1/assets/{asset_id}")).status_code == 404


async def test_registering_the_same_bytes_again_changes_nothing(world: UploadWorld, tmp_path: Path) -> None:
    path = packed_checkpoint(tmp_path)
    first = await public_assets.register_checkpoint(world.database, world.blobs, path, name="tiny-sd15")
    before = await world.row(first)

    again = await public_assets.register_checkpoint(world.database, world.blobs, path, name="tiny-sd15")

    after = await world.row(again)
    assert (first, before.blob_key, before.version) == (again, after.blob_key, after.version)
    assert len(await world.waiting_events()) == 1


async def test_registering_other_bytes_switches_to_them_and_orphans_the_old_ones(world: UploadWorld, tmp_path: Path) -> None:
    asset_id = await public_assets.register_checkpoint(world.database, world.blobs, packed_checkpoint(tmp_path), name="tiny-sd15")
    old = await world.row(asset_id)

    path = packed_checkpoint(tmp_path, b"trained longer")
    again = await public_assets.register_checkpoint(world.database, world.blobs, path, name="tiny-sd15")

    new = await world.row(asset_id)
    assert again == asset_id
    assert (new.sha256 == old.sha256, new.version) == (False, 2)
    assert await world.blob_state(old.blob_key) == "orphaned"
    assert await world.blob_state(new.blob_key) == "committed"


async def test_an_alias_shares_the_bytes_of_its_target_and_follows_a_switch(world: UploadWorld, tmp_path: Path) -> None:
    async def register(weights: bytes) -> None:
        path = packed_checkpoint(tmp_path, weights)
        await public_assets.register_checkpoint(world.database, world.blobs, path, name="tiny")
        await public_assets.ensure_alias(world.database, name="default-sdxl", of="tiny", asset_id=DEFAULT_SDXL)

    await register(b"first")
    first = await world.row(DEFAULT_SDXL)
    await register(b"second")

    second = await world.row(DEFAULT_SDXL)
    shown = await world.shown("octoai:default-sdxl")
    assert (shown["id"], shown["data"]["alias_of"]) == (DEFAULT_SDXL, "tiny")
    assert second.blob_key == (await world.row((await world.shown("octoai:tiny"))["id"])).blob_key != first.blob_key
    # The old bytes are orphaned only when no asset has them any more.
    assert await world.blob_state(first.blob_key) == "orphaned"
    assert await world.blob_state(second.blob_key) == "committed"


async def test_an_alias_that_an_operator_switched_is_not_switched_back(world: UploadWorld, tmp_path: Path) -> None:
    for name in ("tiny", "full"):
        path = packed_checkpoint(tmp_path, name.encode())
        await public_assets.register_checkpoint(world.database, world.blobs, path, name=name)
    await public_assets.ensure_alias(world.database, name="default-sd15", of="tiny")
    await public_assets.switch_alias(world.database, name="default-sd15", of="full")

    await public_assets.ensure_alias(world.database, name="default-sd15", of="tiny")

    assert (await world.shown("octoai:default-sd15"))["data"]["alias_of"] == "full"


async def test_a_file_that_is_no_checkpoint_and_a_missing_target_are_refused(world: UploadWorld, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"not a tar")

    with pytest.raises(InvalidError):
        await public_assets.register_checkpoint(world.database, world.blobs, tmp_path / "x.tar", name="x")
    with pytest.raises(NotFoundError, match="octoai:nothing"):
        await public_assets.switch_alias(world.database, name="default-sd15", of="nothing")


async def test_a_default_alias_accepts_checkpoints_of_one_engine(world: UploadWorld, tmp_path: Path) -> None:
    await public_assets.register_checkpoint(world.database, world.blobs, packed_checkpoint(tmp_path), name="tiny-sd15")

    with pytest.raises(InvalidError, match=r"octoai:tiny-sd15 is for image/stable-diffusion-v1-5, but octoai:default-sdxl needs"):
        await checkpoints.use(world.database, "tiny-sd15", "default-sdxl")
    await checkpoints.use(world.database, "tiny-sd15", "default-sd15")

    listed = await public_assets.checkpoints(world.database)
    assert [(asset.name, asset.data.get("alias_of")) for asset in listed] == [("default-sd15", "tiny-sd15"), ("tiny-sd15", None)]
