"""The safety checker `opennsfw` looks at uploads and at generated images."""

from collections.abc import Callable
from pathlib import Path

import pytest

from services.inference.worker.painter import Painter
from services.inference.worker.settings import WorkerSettings
from services.upload.intake.check import Intake
from services.upload.settings import UploadSettings
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from tests.support.drawing_world import make_studio
from tests.support.upload_world import UploadWorld, png

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
LOWEST = {"safety_checker": "opennsfw", "safety_threshold": 1e-9}
"""No score of the model is below this threshold: it refuses every image that it sees."""


async def test_uploads_are_scored(make_settings: Callable[..., UploadSettings], blobs: Blobs, database_url: str) -> None:
    database = Database(database_url)
    world = await UploadWorld.build(make_settings(UploadSettings), database, blobs)
    harmless = Intake(database, blobs, make_settings(UploadSettings, safety_checker="opennsfw"))
    strict = Intake(database, blobs, make_settings(UploadSettings, **LOWEST))
    first, second = await world.send(png(), "first"), await world.send(png(), "second")

    await harmless.check(first)
    await strict.check(second)

    refused = await world.shown("second")
    assert (await world.shown("first"))["status"] == "ready"
    assert refused["status"] == "rejected"
    assert "the safety checker refuses the image: its score is 0." in refused["status_details"]
    await world.close()
    await database.close()


def test_generated_images_are_scored(make_settings: Callable[..., WorkerSettings], tmp_path: Path) -> None:
    [studio] = make_studio(tmp_path)

    def drawn(**chosen: object) -> tuple[bool, float | None]:
        [image] = studio.results(Painter.from_settings(make_settings(WorkerSettings, device="cpu", **chosen)), seeds=[5])
        return image.data is not None, image.safety_score

    assert drawn() == (True, None)
    is_shown, score = drawn(safety_checker="opennsfw")
    assert (is_shown, score is not None and 0 < score < 0.5) == (True, True)
    assert drawn(**LOWEST) == (False, score)
