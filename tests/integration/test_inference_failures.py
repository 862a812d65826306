"""No failure is final too early, and a worker that cannot draw takes no more requests."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from services.inference.worker import repository
from services.inference.worker.repository import Choice
from services.inference.worker.service import Worker
from services.inference.worker.watch import End
from shared.blobs.store import Blobs
from shared.database.tables import Generation
from shared.errors import UnavailableError
from tests.support.inference_world import MODEL_S, FakePainter, InferenceWorld, make_world
from tests.support.waiting import eventually


@pytest.fixture
async def world(
    database_url: str, blobs: Blobs, make_settings: Callable[..., Any], tmp_path: Path
) -> AsyncIterator[InferenceWorld]:
    async with make_world(database_url, blobs, make_settings, tmp_path) as world:
        await world.add_empty_checkpoint()
        await world.until_listening()
        yield world


async def until(condition: Callable[[], object]) -> None:
    async def met() -> bool | None:
        return True if condition() else None

    await eventually(met)


def exits(worker: Worker) -> list[int]:
    """Record the exit statuses with which the worker ends its process, and go on."""
    statuses: list[int] = []
    worker._end_process = statuses.append
    return statuses


async def test_an_unknown_error_gives_the_request_to_another_worker(world: InferenceWorld) -> None:
    bad, good = FakePainter(), FakePainter()
    bad.fail = [ValueError("broken")] * 3
    async with world.worker(bad, poll_s=0.5):
        generation_id = await world.submit()
        await world.until_begun(bad)
        async with world.worker(good):
            done = await world.finished(generation_id)

    assert (done.state, done.attempt, len(bad.drawn), len(good.drawn)) == ("succeeded", 2, 1, 1)
    assert done.result is not None
    assert done.result["prediction_time_ms"] == MODEL_S * 1000


async def test_the_only_worker_tries_again_and_the_last_error_is_the_reason(world: InferenceWorld) -> None:
    painter = FakePainter()
    painter.fail = [ValueError("broken")] * 3
    async with world.worker(painter):
        failed = await world.finished(await world.submit())

    assert failed.error is not None
    expected = "generation failed after 3 attempts: an unexpected error (ValueError); send the request again"
    assert (failed.attempt, failed.error["code"], failed.error["message"]) == (3, "generation_failed", expected)


async def test_a_worker_that_fails_twice_in_a_row_leaves_ready_and_tests_itself(world: InferenceWorld) -> None:
    painter = FakePainter()
    painter.fail = [ValueError("broken")] * 2
    painter.may_test.clear()
    async with world.worker(painter) as worker:
        statuses = exits(worker)
        generation_id = await world.submit()
        await until(lambda: painter.tested)
        with pytest.raises(UnavailableError, match="2 draws in a row failed; the worker tests its device"):
            await worker.ready()
        assert (await world.generation(generation_id)).state == "queued"
        painter.may_test.set()
        assert (await world.finished(generation_id)).state == "succeeded"
        await worker.ready()

    assert (painter.tested, statuses) == (1, [])


async def test_a_worker_whose_device_fails_its_test_ends_its_process(world: InferenceWorld) -> None:
    painter = FakePainter()
    painter.fail = [ValueError("broken")] * 2
    painter.tests = [RuntimeError("CUDA error")]
    async with world.worker(painter) as worker:
        statuses = exits(worker)
        generation_id = await world.submit()
        await until(lambda: statuses)
        with pytest.raises(UnavailableError):
            await worker.ready()

    assert statuses == [70]
    waiting = await world.generation(generation_id)
    assert (waiting.state, waiting.attempt) == ("queued", 2)


async def test_a_lost_claim_ends_the_draw(world: InferenceWorld) -> None:
    painter = FakePainter()
    painter.may_go_on.clear()
    async with world.worker(painter, claim_s=0.6):
        generation_id = await world.submit()
        await world.until_begun(painter)
        async with world.database.begin() as session:
            await session.execute(update(Generation).values(claim_epoch=Generation.claim_epoch + 1))
        await until(lambda: painter.ended)
        assert [error.args[0] for error in painter.ended] == [End.LOST]
        assert (await world.generation(generation_id)).finished_at is None


async def test_a_draw_that_takes_too_long_ends_between_two_steps(world: InferenceWorld) -> None:
    painter = FakePainter()
    painter.may_go_on.clear()
    async with world.worker(painter, draw_timeout_s=0.1, generation_attempts=1):
        failed = await world.finished(await world.submit())

    assert [error.args[0] for error in painter.ended] == [End.OVERDUE]
    assert failed.error is not None
    assert failed.error["message"].startswith("generation failed after 1 attempts: drawing took longer than 0 s; ask for fewer")


async def test_a_worker_that_hangs_gives_its_request_back_and_ends_its_process(world: InferenceWorld) -> None:
    painter = FakePainter()
    painter.may_go_on.clear()
    painter.hangs = True
    async with world.worker(painter, step_timeout_s=0.2) as worker:
        statuses = exits(worker)
        generation_id = await world.submit()
        await until(lambda: statuses)
        waiting = await world.generation(generation_id)
        painter.may_go_on.set()

    assert statuses == [70]
    assert (waiting.state, waiting.attempt) == ("queued", 1)


async def queued(world: InferenceWorld, account_id: UUID, *ids: str) -> None:
    """Queue requests of an account in this order."""
    first = await world.generation("template")
    async with world.database.begin() as session:
        for number, generation_id in enumerate(ids):
            row = {"engine": first.engine, "affinity": "affinity", "inputs": first.inputs, "created_at": first.created_at}
            session.add(Generation(id=generation_id, account_id=account_id, state="queued", version=number + 1, **row))


async def test_accounts_share_the_workers(world: InferenceWorld) -> None:
    submitted = await world.submit()
    async with world.database.begin() as session:
        await session.execute(update(Generation).where(Generation.id == submitted).values(id="template", attempt=3))
    busy, quiet, third = world.account_id, await world.account("quiet"), await world.account("third")
    await queued(world, busy, "b1", "b2", "b3", "b4")
    await queued(world, quiet, "q1", "q2")
    await queued(world, third, "t1")

    async def claim(**options: Any) -> str:
        choice = Choice(open_after_s=-1, **options)
        async with world.database.begin() as session:
            held = await repository.claim(session, worker="w", token=uuid4(), claim_s=30, choice=choice)
        assert held is not None
        return held.generation_id

    # Requests of the busy account are first only while no other account has fewer that run.
    assert [await claim() for _ in range(7)] == ["b1", "q1", "t1", "b2", "q2", "b3", "b4"]
    async with world.database.begin() as session:
        free = {"state": "queued", "claim_token": None, "claim_holder": None, "claim_expires_at": None, "attempt": 0}
        await session.execute(update(Generation).where(Generation.id != "template").values(**free))
    # A worker alone serves the account that it has served least recently, but prefers what it was announced.
    async with world.database.begin() as session:
        assert [
            await repository.pick(session, Choice(open_after_s=-1, served=[busy, third])),
            await repository.pick(session, Choice(open_after_s=-1, served=[quiet, third, busy])),
            await repository.pick(session, Choice(open_after_s=-1, served=[quiet, third, busy], hinted=["b3"])),
            await repository.pick(session, Choice(open_after_s=-1, failed=["b1"], without=["b2"])),
        ] == ["q1", "q1", "b3", "b3"]
