"""A cut during COMMIT is resolved (promise 7): the retry finds out whether it happened, and does it once."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, select

from services.trainer.settings import TrainerSettings
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Blob, Checkpoint
from shared.settings import ServiceSettings
from shared.states import TuneState
from tests.support.commit_cutter import cut_commits
from tests.support.trainer_world import STUB_CHILD, make_world, run_trainer

pytestmark = pytest.mark.timeout(180)


async def test_a_tune_is_claimed_trained_and_published_once_whichever_commits_are_cut(
    database_url: str, blobs: Blobs, make_settings: Callable[..., ServiceSettings], tmp_path: Path
) -> None:
    settings = make_settings(
        TrainerSettings, poll_s=0.05, renew_every_s=0.2, progress_every_s=0.1, checkpoint_every_steps=4, device="cpu"
    )
    assert isinstance(settings, TrainerSettings)
    world = await make_world(database_url, blobs, settings, tmp_path)
    tune_id = await world.queue_tune(steps=10)

    async with cut_commits(database_url) as cutter:
        database = Database(cutter.url)
        async with run_trainer(database, blobs, settings, STUB_CHILD):
            tune = await world.until(tune_id, TuneState.PUBLISHING, bound_s=90)
            cutter.is_armed = False
        await database.close()

    print(cutter)
    assert cutter.lost >= 2
    assert cutter.unanswered >= 2
    assert (tune.attempt, tune.lease_epoch, tune.step, tune.steps_run) == (1, 1, 10, 10)
    kinds = Counter(await world.event_types(tune_id))
    assert (kinds["tune.started"], kinds["tune.trained"]) == (1, 1)
    assert await world.lora(tune_id)
    async with world.database.begin() as session:
        kept = select(func.count()).select_from(Checkpoint).join(Blob, Blob.key == Checkpoint.blob_key)
        checkpoints = await session.scalar(select(func.count()).select_from(Checkpoint))
        assert await session.scalar(kept.where(Blob.state == "committed")) == checkpoints
    await world.database.close()
