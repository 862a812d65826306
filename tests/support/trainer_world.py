"""A database with tunes in the queue, and a trainer without torch."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from uuid import UUID, uuid4

from sqlalchemy import func, select

from services.trainer.service import TrainerService
from services.trainer.settings import TrainerSettings
from shared.blobs.store import Blobs, Stored
from shared.database.sessions import Database
from shared.database.tables import Blob, Context, Tune, TuneEvent, TuneFile
from shared.engines import Engine
from shared.formats import checkpoint
from shared.ids import new_id
from shared.states import TuneState
from shared.tunes import leases
from tests.support.waiting import eventually
from tests.support.world import World

STUB_CHILD = (sys.executable, str(Path(__file__).with_name("stub_child.py")))
_BOUND_S = 30.0


@dataclass(kw_only=True)
class TrainerWorld(World):
    """What a trainer needs around it: the store, the database, and tunes to train."""

    context = Context.TUNES
    settings: TrainerSettings
    folder: Path
    account_id: UUID
    base: tuple[str, Stored] = ("", Stored("", 0))
    base_info: checkpoint.CheckpointInfo | None = None

    async def use_base(self, folder: Path) -> None:
        """Make a diffusers folder the base of the tunes to come."""
        packed = self.folder / f"{folder.name}.tar"
        checkpoint.pack(folder, packed)
        key = f"assets/{folder.name}/base.tar"
        self.base = (key, await self.put(key, packed))
        if (folder / "unet").exists():
            self.base_info = checkpoint.read_folder(folder)

    async def queue_tune(
        self,
        *,
        steps: int = 10,
        trigger_word: str = "sks1",
        images: list[bytes] | None = None,
        parameters: dict[str, object] | None = None,
        seed: int = 1,
    ) -> str:
        """Put a tune into the queue, as the scheduler does, and return its id."""
        tune_id, (base_key, base) = new_id("tune"), self.base
        keys: list[str] = []
        for number, image in enumerate(images or [b"one", b"two"]):
            keys.append(f"assets/{tune_id}/{number}.png")
            await self.put(keys[-1], image)
        info = self.base_info
        async with self.database.begin() as session:
            session.add(
                Tune(
                    id=tune_id,
                    account_id=self.account_id,
                    name=tune_id,
                    base_asset_id="asset_base",
                    base_name="base",
                    engine=info.engine if info else Engine.SD15,
                    base_blob_key=base_key,
                    base_sha256=base.sha256,
                    shape_class=info.shape_class if info else "sd15-stub",
                    native_size_px=info.native_size_px if info else 64,
                    steps=steps,
                    seed=seed,
                    trigger_word=trigger_word,
                    parameters=parameters or {},
                    request={},
                    state=TuneState.QUEUED,
                    queued_at=func.now(),
                )
            )
            await session.flush()
            for number, key in enumerate(keys):
                session.add(
                    TuneFile(
                        tune_id=tune_id,
                        position=number,
                        asset_id=f"asset_{number}",
                        caption=f"a photo of {trigger_word} star",
                        blob_key=key,
                        verdict="ready",
                    )
                )
        return tune_id

    async def tune(self, tune_id: str) -> Tune:
        """Read a tune's row."""
        async with self.database.begin() as session:
            return (await session.scalars(select(Tune).where(Tune.id == tune_id))).one()

    async def event_types(self, tune_id: str) -> list[str]:
        """Return the types of a tune's events, in order."""
        async with self.database.begin() as session:
            events = select(TuneEvent.type).where(TuneEvent.tune_id == tune_id).order_by(TuneEvent.sequence)
            return list(await session.scalars(events))

    async def lora(self, tune_id: str) -> bytes:
        """Return the LoRA of a trained tune, checked against the tune's row."""
        tune = await self.tune(tune_id)
        assert tune.lora_key is not None
        data = await self.blobs.get_bytes(tune.lora_key, max_bytes=1 << 24)
        assert sha256(data).hexdigest() == tune.lora_sha256
        assert len(data) == tune.lora_size_bytes
        async with self.database.begin() as session:
            assert (await session.scalars(select(Blob.state).where(Blob.key == tune.lora_key))).one() == "committed"
        return data

    async def until(
        self,
        tune_id: str,
        *states: TuneState,
        where: Callable[[Tune], bool] = lambda _tune: True,
        bound_s: float = _BOUND_S,
    ) -> Tune:
        """Wait until the tune is in one of the states, and return it."""

        async def reached() -> Tune | None:
            tune = await self.tune(tune_id)
            return tune if tune.state in states and where(tune) else None

        return await eventually(reached, bound_s)

    @asynccontextmanager
    async def trainer(self, *, command: tuple[str, ...] = STUB_CHILD, **settings: object) -> AsyncGenerator[TrainerService]:
        """Run a trainer beside the test; it is drained at the end."""
        async with run_trainer(self.database, self.blobs, self.settings.model_copy(update=settings), command) as service:
            yield service


@asynccontextmanager
async def run_trainer(
    database: Database, blobs: Blobs, settings: TrainerSettings, command: tuple[str, ...]
) -> AsyncGenerator[TrainerService]:
    """Run a trainer; it is drained at the end."""
    service = TrainerService(database, blobs, settings, child_command=command)
    running = asyncio.create_task(service.run())
    try:
        yield service
    finally:
        await service.drain()
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def claim_next(database: Database) -> leases.Claim:
    """Claim the next tune, as a trainer does."""
    async with database.begin() as session:
        held = await leases.claim(session, trainer="trainer_a", token=uuid4(), lease_s=60, running_per_account=100)
    assert held is not None
    return held


async def make_world(database_url: str, blobs: Blobs, settings: TrainerSettings, folder: Path) -> TrainerWorld:
    """Build a world with an account and a base that only the stub child can use."""
    database = Database(database_url)
    account_id = await World(database=database, blobs=blobs).account("account")
    world = TrainerWorld(database=database, blobs=blobs, settings=settings, folder=folder, account_id=account_id)
    stub = folder / "stub-base"
    stub.mkdir()
    (stub / "model_index.json").write_text(json.dumps({}))
    await world.use_base(stub)
    return world
