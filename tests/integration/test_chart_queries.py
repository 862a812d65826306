"""The queries by which KEDA scales trainers and image workers, as the chart has them, on the real schema."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from sqlalchemy import text, update

from services.trainer.settings import TrainerSettings
from shared.blobs.store import Blobs
from shared.database.tables import Generation, Tune
from shared.ids import new_id
from shared.settings import ServiceSettings
from shared.states import TuneState
from shared.tunes import leases
from tests.support.helm import CHART, example, helm
from tests.support.trainer_world import TrainerWorld, make_world

PER_ACCOUNT = 4


@pytest.fixture(scope="module")
def queries() -> dict[str, str]:
    """Each query by its trigger's name; that of the trainers has none."""
    made = list(yaml.safe_load_all(helm("template", "release", str(CHART), "--values", str(example("minimal"))).stdout))
    triggers = [trigger for found in made if found for trigger in found.get("spec", {}).get("triggers", ())]
    return {trigger.get("name", "tunes"): trigger["metadata"]["query"] for trigger in triggers}


@pytest.fixture
async def world(
    database_url: str, blobs: Blobs, make_settings: Callable[..., ServiceSettings], tmp_path: Path
) -> AsyncIterator[TrainerWorld]:
    settings = make_settings(TrainerSettings)
    assert isinstance(settings, TrainerSettings)
    world = await make_world(database_url, blobs, settings, tmp_path)
    yield world
    await world.database.close()


async def _answer(world: TrainerWorld, query: str) -> float:
    async with world.database.begin() as session:
        return float(await session.scalar(text(query)))


async def _claim(world: TrainerWorld) -> leases.Claim | None:
    async with world.database.begin() as session:
        return await leases.claim(session, trainer="t", token=uuid4(), lease_s=60, running_per_account=PER_ACCOUNT)


async def test_trainers_are_wanted_for_what_may_be_claimed_and_what_is_trained(
    world: TrainerWorld, queries: dict[str, str]
) -> None:
    query = queries["tunes"]
    assert await _answer(world, query) == 0
    for _ in range(PER_ACCOUNT - 1):
        await world.queue_tune()
    assert await _answer(world, query) == PER_ACCOUNT - 1
    for _ in range(3):
        await world.queue_tune()
    assert await _answer(world, query) == PER_ACCOUNT, "no trainer is wanted for tunes that the account's limit holds back"

    assert await _claim(world)
    assert await _answer(world, query) == PER_ACCOUNT, "a claimed tune still needs its trainer"
    while await _claim(world):
        pass
    assert await _answer(world, query) == PER_ACCOUNT

    world.account_id = await world.account("another")
    await world.queue_tune()
    assert await _answer(world, query) == PER_ACCOUNT + 1


async def test_no_trainer_is_wanted_for_a_tune_that_has_ended_or_whose_cancel_was_requested(
    world: TrainerWorld, queries: dict[str, str]
) -> None:
    cancelled, ended = await world.queue_tune(), await world.queue_tune()
    async with world.database.begin() as session:
        await session.execute(update(Tune).where(Tune.id == cancelled).values(cancel_requested_at=text("now()")))
        await session.execute(update(Tune).where(Tune.id == ended).values(state=TuneState.FAILED, ended_at=text("now()")))

    assert await _answer(world, queries["tunes"]) == 0


async def test_workers_are_wanted_for_generations_that_are_unfinished_and_for_the_age_of_the_oldest(
    world: TrainerWorld, queries: dict[str, str]
) -> None:
    assert [await _answer(world, queries[name]) for name in ("generations", "oldest")] == [0, 0]

    def generation(state: str, **more: Any) -> Generation:
        values = {"engine": "sd15", "affinity": "a", "inputs": {}, "version": 1, "account_id": world.account_id}
        return Generation(id=new_id("gen"), state=state, **values, **more)

    async with world.database.begin() as session:
        waiting = generation("queued")
        claim = {"claim_token": uuid4(), "claim_holder": "worker", "claim_expires_at": text("now()")}
        session.add_all([waiting, generation("running", **claim)])
        session.add(generation("failed", finished_at=text("now()"), error={}))
        await session.flush()
        await session.execute(
            update(Generation).where(Generation.id == waiting.id).values(created_at=text("now() - interval '1 min'"))
        )

    assert await _answer(world, queries["generations"]) == 2
    assert 60 <= await _answer(world, queries["oldest"]) < 120
