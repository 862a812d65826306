"""A trainer's attempts, with a training process that speaks the protocol but trains nothing."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import ProgrammingError

from services.trainer.service import TrainerService
from services.trainer.settings import TrainerSettings
from shared.blobs.store import Blobs, Stored
from shared.database.sessions import Database
from shared.database.tables import Checkpoint, Sample, Trainer, Tune, TuneEvent
from shared.failures import is_unmigrated
from shared.messaging.events import TuneCancelRequested, TuneQueued
from shared.settings import ServiceSettings
from shared.states import TuneState
from shared.tunes import queue
from tests.support.trainer_world import STUB_CHILD, TrainerWorld, make_world
from tests.support.waiting import eventually


@pytest.fixture
async def world(
    database_url: str, blobs: Blobs, make_settings: Callable[..., ServiceSettings], tmp_path: Path
) -> AsyncIterator[TrainerWorld]:
    settings = make_settings(
        TrainerSettings, poll_s=0.05, renew_every_s=0.2, progress_every_s=0.1, checkpoint_every_steps=4, device="cpu"
    )
    assert isinstance(settings, TrainerSettings)
    world = await make_world(database_url, blobs, settings, tmp_path)
    yield world
    await world.database.close()


async def request_cancel(world: TrainerWorld, tune_id: str) -> None:
    async with world.database.begin() as session:
        await session.execute(update(Tune).where(Tune.id == tune_id).values(cancel_requested_at=func.now()))


async def test_a_queued_tune_is_trained_and_its_lora_stored(world: TrainerWorld) -> None:
    tune_id = await world.queue_tune(steps=10)
    async with world.trainer():
        tune = await world.until(tune_id, TuneState.PUBLISHING)
    assert (tune.step, tune.steps_run, tune.attempt, tune.lease_token) == (10, 10, 1, None)
    assert tune.lora_key == f"tunes/{tune_id}/1/lora.safetensors"
    assert await world.lora(tune_id)
    events = await world.event_types(tune_id)
    assert events[0] == "tune.started"
    assert events[-1] == "tune.trained"


async def test_a_trainer_of_a_job_trains_all_that_is_queued_and_then_ends_by_itself(world: TrainerWorld) -> None:
    tunes = [await world.queue_tune(), await world.queue_tune()]
    settings = world.settings.model_copy(update={"exit_when_idle_s": 0.2})
    trainer = TrainerService(world.database, world.blobs, settings, child_command=STUB_CHILD)

    async with asyncio.timeout(60):
        await trainer.run()

    assert trainer.is_done
    assert [(await world.tune(tune_id)).state for tune_id in tunes] == [TuneState.PUBLISHING] * 2


async def test_validation_images_are_stored_and_published_before_the_tune_is_trained(world: TrainerWorld) -> None:
    prompts = ["sks1 on a beach", "sks1 in snow"]
    tune_id = await world.queue_tune(steps=10, parameters={"validation_prompts": prompts})
    async with world.trainer():
        await world.until(tune_id, TuneState.PUBLISHING)

    async with world.database.begin() as session:
        sampled = select(TuneEvent.data).where(TuneEvent.tune_id == tune_id, TuneEvent.type == "tune.sampled")
        rounds = list(await session.scalars(sampled.order_by(TuneEvent.sequence)))
        kept = list(await session.scalars(select(Sample.blob_key).order_by(Sample.step, Sample.number)))
    assert [data["step"] for data in rounds] == [4, 8, 10]
    assert [sample["prompt"] for sample in rounds[0]["samples"]] == prompts
    assert kept == [sample["key"] for data in rounds for sample in data["samples"]]
    assert (await world.blobs.get_bytes(kept[0], max_bytes=1000)).startswith(b"sample-4-0 ")
    assert (await world.event_types(tune_id))[-1] == "tune.trained"


async def test_the_loss_of_every_step_is_published_once(world: TrainerWorld) -> None:
    tune_id = await world.queue_tune(steps=40, trigger_word="hold@20")
    async with world.trainer() as trainer:
        await world.until(tune_id, TuneState.TRAINING, where=lambda tune: tune.step == 20)
        attempt = trainer._attempt
        assert attempt is not None
        (attempt.folder / "go").touch()
        await world.until(tune_id, TuneState.PUBLISHING)

    async with world.database.begin() as session:
        progressed = select(TuneEvent.data).where(TuneEvent.tune_id == tune_id, TuneEvent.type == "tune.progressed")
        losses = [loss for data in await session.scalars(progressed.order_by(TuneEvent.sequence)) for loss in data["losses"]]
    assert losses == [1.0 / step for step in range(1, 41)]


async def test_two_runs_of_one_tune_give_one_lora(world: TrainerWorld) -> None:
    first, second = await world.queue_tune(seed=5), await world.queue_tune(seed=5)
    async with world.trainer():
        for tune_id in (first, second):
            await world.until(tune_id, TuneState.PUBLISHING)
    assert await world.lora(first) == await world.lora(second)


async def test_only_the_last_two_checkpoints_are_kept_while_it_trains(world: TrainerWorld) -> None:
    await world.queue_tune(steps=50, trigger_word="pause@22")
    async with world.trainer():

        async def kept() -> list[int] | None:
            async with world.database.begin() as session:
                steps = list(await session.scalars(select(Checkpoint.step).order_by(Checkpoint.step)))
            return steps if 20 in steps else None

        steps = await eventually(kept)
    assert len(steps) <= 2


async def test_a_cancel_ends_the_process_and_the_tune(world: TrainerWorld) -> None:
    tune_id = await world.queue_tune(trigger_word="pause@3")
    async with world.trainer(renew_every_s=600.0) as trainer:
        await world.until(tune_id, TuneState.TRAINING)
        await request_cancel(world, tune_id)
        tune = await world.tune(tune_id)
        trainer.hear(TuneCancelRequested(version=tune.version, tune_id=tune_id, account_id=str(tune.account_id)))
        await world.until(tune_id, TuneState.CANCELLED)
    assert (await world.event_types(tune_id)).count("tune.cancelled") == 1


async def test_a_cancel_without_a_hint_is_noticed_at_the_next_renewal(world: TrainerWorld) -> None:
    tune_id = await world.queue_tune(trigger_word="pause@3")
    async with world.trainer():
        await world.until(tune_id, TuneState.TRAINING)
        await request_cancel(world, tune_id)
        await world.until(tune_id, TuneState.CANCELLED)


async def test_a_permanent_error_fails_the_tune_with_its_code_and_text(world: TrainerWorld) -> None:
    tune_id = await world.queue_tune(trigger_word="fail@2:loss_not_finite")
    async with world.trainer():
        tune = await world.until(tune_id, TuneState.FAILED)
    assert tune.error_code == "loss_not_finite"
    assert "step 2" in tune.status_details


async def test_after_a_passing_error_the_tune_resumes_from_the_last_checkpoint(world: TrainerWorld) -> None:
    tune_id = await world.queue_tune(steps=10, trigger_word="flaky@6:unavailable")
    plain = await world.queue_tune(steps=10)
    async with world.trainer():
        tune = await world.until(tune_id, TuneState.PUBLISHING)
        await world.until(plain, TuneState.PUBLISHING)
    assert tune.attempt == 2
    assert tune.steps_run in (12, 16)
    assert await world.lora(tune_id) == await world.lora(plain)


async def test_an_error_text_with_a_nul_is_recorded_with_the_nul_escaped(world: TrainerWorld) -> None:
    tune_id = await world.queue_tune(trigger_word="nul@2:internal")
    async with world.trainer():
        tune = await world.until(tune_id, TuneState.FAILED)
    assert (tune.error_code, tune.attempt) == ("internal", 1)
    assert tune.status_details == r"made to fail at step 2: \x00"


async def test_a_passing_error_in_every_attempt_uses_up_the_attempts(world: TrainerWorld) -> None:
    tune_id = await world.queue_tune(trigger_word="flaky@1:unavailable")
    async with world.trainer():
        tune = await world.until(tune_id, TuneState.FAILED)
    assert (tune.error_code, tune.attempt) == ("attempts_exhausted", 3)


async def test_a_process_that_reports_nothing_is_killed_and_the_tune_resumes_from_its_checkpoint(
    world: TrainerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_file, silence_s = world.blobs.put_file, 1.0

    async def put_slowly(key: str, file: Path, content_type: str) -> Stored:
        # The process counts as hung before its checkpoint is stored.
        await asyncio.sleep(1.5 * silence_s)
        return await put_file(key, file, content_type)

    monkeypatch.setattr(world.blobs, "put_file", put_slowly)
    tune_id = await world.queue_tune(steps=10, trigger_word="hang@5")
    async with world.trainer(silence_train_s=silence_s):
        tune = await world.until(tune_id, TuneState.PUBLISHING)
    assert (tune.attempt, tune.steps_run) == (2, 5 + 6)


async def test_a_parameter_outside_its_limits_is_named(world: TrainerWorld) -> None:
    tune_id = await world.queue_tune(parameters={"rank": 4096})
    async with world.trainer():
        tune = await world.until(tune_id, TuneState.FAILED)
    assert tune.error_code == "invalid"
    assert "parameters.rank" in tune.status_details
    assert "128" in tune.status_details


async def test_a_missing_image_is_named(world: TrainerWorld) -> None:
    tune_id = await world.queue_tune()
    await world.blobs.delete(f"assets/{tune_id}/1.png")
    async with world.trainer():
        tune = await world.until(tune_id, TuneState.FAILED)
    assert tune.error_code == "bad_image"
    assert "files[1]" in tune.status_details


async def test_a_lost_lease_ends_the_process_and_writes_nothing(world: TrainerWorld) -> None:
    tune_id = await world.queue_tune(trigger_word="pause@3")
    async with world.trainer() as trainer:
        await world.until(tune_id, TuneState.TRAINING)
        async with world.database.begin() as session:
            await session.execute(update(Tune).where(Tune.id == tune_id).values(lease_epoch=Tune.lease_epoch + 1))
        events = await world.event_types(tune_id)

        async def let_go() -> bool | None:
            return True if trainer.state != "busy" else None

        await eventually(let_go)
        assert await world.event_types(tune_id) == events


async def test_the_base_is_downloaded_once(world: TrainerWorld) -> None:
    first, second = await world.queue_tune(), await world.queue_tune()
    async with world.trainer():
        await world.until(first, TuneState.PUBLISHING)
        await world.blobs.delete(world.base[0])
        await world.until(second, TuneState.PUBLISHING)


async def test_a_stopping_trainer_deletes_its_row_and_leaves_no_process(world: TrainerWorld) -> None:
    others = {child.pid for child in psutil.Process().children()}
    tune_id = await world.queue_tune(trigger_word="pause@3")
    async with world.trainer() as trainer:
        await world.until(tune_id, TuneState.TRAINING)
        await trainer.heartbeat()
        async with world.database.begin() as session:
            row = (await session.scalars(select(Trainer))).one()
        assert (row.state, row.tune_id, row.device) == ("busy", tune_id, "cpu")
    async with world.database.begin() as session:
        assert (await session.scalars(select(Trainer))).all() == []
    assert {child.pid for child in psutil.Process().children()} <= others


async def test_a_trainer_that_started_before_the_migrations_releases_its_tune_when_it_stops(world: TrainerWorld) -> None:
    trainer = TrainerService(world.database, world.blobs, world.settings, child_command=STUB_CHILD)
    async with world.database.begin() as session:
        await session.execute(text("ALTER TABLE tunes RENAME TO not_yet"))
    with pytest.raises(ProgrammingError) as missing:
        await trainer.run()
    assert is_unmigrated(missing.value)
    async with world.database.begin() as session:
        await session.execute(text("ALTER TABLE not_yet RENAME TO tunes"))

    tune_id = await world.queue_tune(trigger_word="pause@6")
    running = asyncio.create_task(trainer.run())
    await world.until(tune_id, TuneState.TRAINING, where=lambda tune: tune.step == 6)
    await trainer.drain()
    tune = await world.tune(tune_id)
    assert (tune.state, tune.attempt, tune.step) == (TuneState.QUEUED, 0, 7)
    await running


async def test_the_job_folder_is_removed_with_its_attempt(world: TrainerWorld) -> None:
    tune_id = await world.queue_tune()
    async with world.trainer():
        await world.until(tune_id, TuneState.PUBLISHING)

        async def empty() -> bool | None:
            with contextlib.suppress(FileNotFoundError):
                return None if await asyncio.to_thread(lambda: list((world.settings.work_dir / "jobs").iterdir())) else True
            return True

        await eventually(empty)


async def test_an_idle_trainer_polls_less_and_less_often_while_hints_arrive(
    world: TrainerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    polls: list[float] = []
    enough = asyncio.Event()
    pick = queue.pick

    async def noted(*args: Any, **named: Any) -> str | None:
        polls.append(time.monotonic())
        if len(polls) == 6:
            enough.set()
        return await pick(*args, **named)

    monkeypatch.setattr(queue, "pick", noted)
    async with world.trainer(poll_s=0.02, poll_max_s=60.0) as service:
        service.hints_arrive.set()
        async with asyncio.timeout(60):
            await enough.wait()
        gaps = [later - earlier for earlier, later in pairwise(polls)]
        assert all(gap >= 0.8 * 0.02 * 2**number for number, gap in enumerate(gaps))

        tune_id = await world.queue_tune()
        service.hear(TuneQueued(tune_id=tune_id, account_id=str(world.account_id), version=1))
        await world.until(tune_id, TuneState.PREPARING, TuneState.TRAINING, TuneState.PUBLISHING)


async def test_a_trainer_keeps_one_connection_while_it_is_idle(database_url: str, world: TrainerWorld) -> None:
    settings = world.settings.model_copy(update={"database_url": SecretStr(database_url)})
    database = Database.from_settings(settings, application_name="trainer-pool", share=0.4, kept=1)
    used = select(func.count()).select_from(text("pg_stat_activity")).where(text("application_name = 'trainer-pool'"))

    async def connections() -> int:
        async with world.database.begin() as session:
            return await session.scalar(used) or 0

    async def one() -> bool | None:
        return await connections() == 1 or None

    async with database.begin() as first, database.begin() as second, database.begin() as third, database.begin() as fourth:
        for session in (first, second, third, fourth):
            await session.connection()
        assert await connections() == 4
    await eventually(one)
    await database.close()
