"""Image requests whose worker was lost, or whose event reached no worker, are retried from their rows."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update

from services.inference.inputs import Inputs, ModelRef
from services.inference.service import ImageService
from services.inference.settings import InferenceSettings
from services.inference.worker import repository as worker
from services.inference.worker.repository import Choice
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Context, Generation
from shared.errors import LeaseLostError
from shared.ids import new_id
from tests.support.world import World

CLAIM_S = 30.0


@dataclass(kw_only=True)
class ReconcilerWorld(World):
    """The image API's reconciler, and rows of requests."""

    context = Context.IMAGES
    service: ImageService
    settings: InferenceSettings
    account_id: UUID

    async def store(self) -> str:
        """Store a request, as the API does, but without its event."""
        generation_id = new_id("gen")
        base = ModelRef(name="base", asset_id="asset_base", blob_key="assets/base.tar", sha256="ab" * 32)
        inputs = Inputs(
            engine="image/stable-diffusion-v1-5",
            base=base,
            loras=[],
            prompt="a star",
            negative_prompt="",
            prompt_2=None,
            negative_prompt_2=None,
            sampler="DDIM",
            width=512,
            height=512,
            cfg_scale=7,
            steps=1,
            seeds=[1],
            image_encoding="png",
        )
        async with self.database.begin() as session:
            row = {"engine": inputs.engine, "affinity": "affinity", "inputs": inputs.model_dump(mode="json")}
            session.add(Generation(id=generation_id, account_id=self.account_id, state="queued", version=1, **row))
        return generation_id

    async def claim(self, generation_id: str) -> worker.Claim | None:
        async with self.database.begin() as session:
            return await worker.claim(
                session,
                worker="worker",
                token=uuid4(),
                claim_s=CLAIM_S,
                choice=Choice(hinted=[generation_id], open_after_s=0, attempts=self.settings.generation_attempts),
            )

    async def age(self, generation_id: str, seconds: float) -> None:
        """Make one request older by this many seconds."""
        past = {"updated_at": Generation.updated_at - timedelta(seconds=seconds)}
        past |= {"claim_expires_at": Generation.claim_expires_at - timedelta(seconds=seconds)}
        async with self.database.begin() as session:
            await session.execute(update(Generation).where(Generation.id == generation_id).values(past))

    async def row(self, generation_id: str) -> Generation:
        async with self.database.begin() as session:
            return await session.get_one(Generation, generation_id)


@pytest.fixture
async def world(
    database_url: str, blobs: Blobs, make_settings: Callable[..., InferenceSettings]
) -> AsyncIterator[ReconcilerWorld]:
    database, settings = Database(database_url), make_settings(InferenceSettings)
    yield ReconcilerWorld(
        database=database,
        blobs=blobs,
        service=ImageService(settings, database, blobs),
        settings=settings,
        account_id=await World(database=database, blobs=blobs).account("studio"),
    )
    await database.close()


async def test_an_unclaimed_request_is_republished_once_for_each_wait(world: ReconcilerWorld) -> None:
    generation_id = await world.store()
    await world.service.reconcile()
    assert await world.waiting_events() == [], "it has not waited long enough"

    await world.age(generation_id, world.settings.generation_hint_s + 1)
    for _ in range(2):
        await world.service.reconcile()

    event = {"version": 1, "generation_id": generation_id, "affinity": "affinity"}
    assert await world.waiting_events() == [("image.requested", event)]


async def test_a_request_of_a_lost_worker_goes_to_another_and_the_first_can_write_nothing(world: ReconcilerWorld) -> None:
    generation_id = await world.store()
    first = await world.claim(generation_id)
    assert first is not None
    await world.service.reconcile()
    assert (await world.row(generation_id)).state == "running", "its claim has not expired"

    await world.age(generation_id, CLAIM_S + 1)
    await world.service.reconcile()

    assert [kind for kind, _ in await world.waiting_events()] == ["image.requested"]
    second = await world.claim(generation_id)
    assert second is not None
    assert (second.epoch, second.attempt) == (2, 2)
    with pytest.raises(LeaseLostError):
        async with world.database.begin() as session:
            await worker.succeed(session, first, {})
    assert (await world.row(generation_id)).result is None


async def test_a_request_is_claimed_once(world: ReconcilerWorld) -> None:
    generation_id = await world.store()
    held = await world.claim(generation_id)
    assert held is not None
    assert await world.claim(generation_id) is None
    async with world.database.begin() as session:
        await worker.succeed(session, held, {"pictures": [], "prediction_time_ms": 1.0, "notices": []})

    assert await world.claim(generation_id) is None
    assert [kind for kind, _ in await world.waiting_events()] == ["image.generated"]


async def test_a_request_without_attempts_left_fails_and_the_event_is_published(world: ReconcilerWorld) -> None:
    generation_id = await world.store()
    for _ in range(world.settings.generation_attempts):
        assert await world.claim(generation_id)
        await world.age(generation_id, CLAIM_S + 1)
        await world.service.reconcile()

    row = await world.row(generation_id)
    assert (row.state, row.attempt) == ("failed", world.settings.generation_attempts)
    assert row.error is not None
    assert row.error["code"] == "attempts_exhausted"
    kind, event = (await world.waiting_events())[-1]
    assert (kind, event["generation_id"], event["code"]) == ("image.failed", generation_id, "attempts_exhausted")
    assert event["version"] == row.version
