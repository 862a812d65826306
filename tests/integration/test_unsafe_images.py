"""An image that the safety checker refuses at intake: only a tune with `continue_on_rejection` is trained, without that image."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local.paths import PROJECT
from services.trainer.engine.config import JOB_FILE, Job
from services.trainer.service import TrainerService
from services.trainer.settings import TrainerSettings
from services.upload import public_assets
from shared.blobs.store import Blobs
from shared.formats import checkpoint
from tests.support.platform_world import Platform, running
from tests.support.trainer_world import STUB_CHILD
from tests.support.upload_world import png
from tests.support.waiting import eventually

# Whole services run in this process. The connection to a slow broker is dropped without a close when its time is up.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
MakeSettings = Callable[..., Any]


@pytest.fixture
async def platform(make_settings: MakeSettings, blobs: Blobs, tmp_path: Path) -> AsyncIterator[Platform]:
    """The services with a safety checker that refuses red, and a base checkpoint to tune."""
    checker = {"safety_checker": "tests.support.safety_checkers:NoRed", "safety_threshold": 0.9}
    async with running(make_settings, blobs, **checker) as platform:
        packed = tmp_path / "tiny-sd15.tar"
        checkpoint.pack(PROJECT / "deploy" / "checkpoints" / "tiny-sd15", packed)
        await public_assets.register_checkpoint(platform.database, blobs, packed, name="tiny-sd15")
        yield platform


@pytest.fixture
async def work_dir(platform: Platform, make_settings: MakeSettings, blobs: Blobs) -> AsyncIterator[Path]:
    """The work folder of a trainer whose child process is a stub."""
    settings: TrainerSettings = make_settings(TrainerSettings)
    trainer = TrainerService(platform.database, blobs, settings, child_command=STUB_CHILD)
    at_work = asyncio.create_task(trainer.run())
    yield settings.work_dir
    await trainer.drain()
    at_work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await at_work


async def _upload(client: httpx.AsyncClient, name: str, content: bytes) -> str:
    body = {"name": name, "asset_type": "file", "data": {"asset_type": "file"}}
    made = (await client.post("/v1/assets", json=body)).raise_for_status().json()
    async with httpx.AsyncClient() as store:
        (await store.put(made["transfer_api"]["put_url"], content=content)).raise_for_status()
    (await client.post(f"/v1/assets/{made['asset']['id']}/complete-upload", json={})).raise_for_status()
    return made["asset"]["id"]


async def test_a_tune_continues_without_an_unsafe_image_only_on_request(platform: Platform, work_dir: Path) -> None:
    async with platform.client(await platform.key(await platform.account("studio"))) as client:

        async def tune(name: str, *, continues: bool) -> str:
            details = {
                "base_checkpoint": {"checkpoint_id": "octoai:tiny-sd15"},
                "files": [{"file_id": file, "caption": f"{file} hold@2"} for file in (bad, good)],
                "steps": 3,
                "trigger_words": ["hold@2"],
            }
            body = {"name": name, "details": details, "continue_on_rejection": continues}
            return (await client.post("/v1/tune", json=body)).raise_for_status().json()["id"]

        async def ended(tune_id: str) -> dict[str, Any]:
            async def over() -> dict[str, Any] | None:
                now = (await client.get(f"/v1/tune/{tune_id}")).raise_for_status().json()
                return now if now["status"] not in {"pending", "running"} else None

            return await eventually(over, 120)

        async def held_at(tune_id: str) -> Path | None:
            """Return the folder of the attempt once training is held at its second step."""
            now = (await client.get(f"/v1/tune/{tune_id}")).json()
            return work_dir / "jobs" / f"{tune_id}-1" if now["progress"] and now["progress"]["step"] else None

        good, bad = await _upload(client, "good", png(colour="teal")), await _upload(client, "bad", png(colour="red"))
        strict, lenient = await tune("strict", continues=False), await tune("lenient", continues=True)

        folder = await eventually(lambda: held_at(lenient), 120)
        job = Job.model_validate_json((folder / JOB_FILE).read_text())
        (job.output_folder / "go").touch()
        failed, trained = await ended(strict), await ended(lenient)
        refused = (await client.get(f"/v1/assets/{bad}")).json()["asset"]
        lora = (await client.get("/v1/assets/lenient")).json()["asset"]

    assert refused["status"] == "rejected"
    assert "the safety checker refuses the image" in refused["status_details"]
    assert failed["status"] == "failed"
    assert f"1 of 2 files cannot be trained on, the first is {bad}" in failed["status_details"]
    assert trained["status"] == "succeeded"
    result = trained["result"]
    assert (result["number_of_available_assets"], result["rejected_assets"]) == (1, [bad])
    assert trained["output_lora_ids"] == [lora["id"]]
    assert [image.caption for image in job.images] == [f"{good} hold@2"]
