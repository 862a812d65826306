"""A database with checkpoints, the wired image API, and image workers."""

import asyncio
import contextlib
import io
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import numpy as np
from PIL import Image
from sqlalchemy import select, update

from services.inference.app import create_app
from services.inference.inputs import Drawing, DrawnImage, Inputs
from services.inference.settings import InferenceSettings
from services.inference.worker import service as worker_service
from services.inference.worker.materials import Materials
from services.inference.worker.service import Worker
from services.inference.worker.settings import WorkerSettings
from services.inference.worker.steps import DrawCancelledError, OnStep
from shared.background import Background
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Asset, Context, Generation
from shared.formats import checkpoint
from shared.ids import new_id
from shared.messaging.consumer import Consumers
from shared.messaging.events import ImageRequested
from tests.support.waiting import eventually
from tests.support.world import SD15, World

SHAPE = "sd15-random"
MODEL_S = 0.125


class FakePainter:
    """Returns each seed as an image once `may_go_on` is set, and records the inputs."""

    def __init__(self) -> None:
        self.residency = self
        self.device = "none"
        self.drawn: list[Inputs] = []
        self.begun = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.fail: list[Exception] = []
        self.ended: list[DrawCancelledError] = []
        self.hangs = False
        """Whether it waits for `may_go_on` without calling the hook of its steps."""
        self.tests: list[Exception | None] = []
        """What each test of the device raises; tests beyond these pass."""
        self.tested = 0
        self.may_test = threading.Event()
        self.may_test.set()

    def draw(self, inputs: Inputs, materials: Materials, on_step: OnStep) -> Drawing:
        self.drawn.append(inputs)
        self.begun.set()
        while not self.may_go_on.wait(0.02):
            if not self.hangs:
                self._step(on_step)
        if self.fail:
            raise self.fail.pop(0)
        images = [DrawnImage(coloured(seed) if inputs.with_previews else str(seed).encode()) for seed in inputs.seeds]
        return Drawing(images, [f"drawn from {materials.base.name[:8]}"], MODEL_S)

    def _step(self, on_step: OnStep) -> None:
        try:
            on_step(1, 2, np.zeros((1, 1, 1, 1)))
        except DrawCancelledError as error:
            self.ended.append(error)
            raise

    def test(self) -> None:
        self.tested += 1
        self.may_test.wait(30)
        if self.tests and (error := self.tests.pop(0)):
            raise error


def coloured(seed: int) -> bytes:
    """Return a PNG whose colour follows from the seed."""
    out = io.BytesIO()
    Image.new("RGB", (512, 512), (seed % 256, seed // 256 % 256, 0)).save(out, "PNG")
    return out.getvalue()


@dataclass(kw_only=True)
class InferenceWorld(World):
    """The parts of the image API, a client of its account, and a client of another account."""

    context = Context.IMAGES
    settings: InferenceSettings
    worker_settings: WorkerSettings
    folder: Path
    app: Any = None
    client: httpx.AsyncClient = field(default_factory=httpx.AsyncClient)
    stranger: httpx.AsyncClient = field(default_factory=httpx.AsyncClient)
    account_id: UUID = field(default_factory=lambda: UUID(int=0))
    platform_id: UUID = field(default_factory=lambda: UUID(int=0))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["InferenceWorld"]:
        """Run the API with its relay and reconciler, and make both accounts."""
        self.app = create_app(self.settings)
        self.platform_id, self.account_id = await self.platform_account(), await self.account("studio")
        self.client = await self.connect(self.app, self.account_id)
        self.stranger = await self.connect(self.app, await self.account("stranger"))
        async with self.app.router.lifespan_context(self.app):
            yield self
        for client in (self.client, self.stranger):
            await client.aclose()

    async def until_listening(self) -> None:
        """Wait until the API takes requests."""

        async def taken() -> bool | None:
            answer = await self.client.post("/generate/sd", json={"prompt": "x", "checkpoint": "none-of-this-name"})
            return True if answer.status_code == 422 else None

        await eventually(taken)

    async def add_asset(self, name: str, asset_type: str, content: bytes | Path, *, public: bool = True, **data: object) -> Asset:
        """Put an asset into the library of the platform, or of the caller's account."""
        account_id, data = self.platform_id if public else self.account_id, {"asset_type": asset_type} | data
        return await self.put_asset(account_id, name, asset_type, content, is_public=public, data=data)

    async def add_checkpoint(self, name: str, model_folder: Path, engine: str = SD15, **data: object) -> Asset:
        """Pack a model folder and make it a public checkpoint."""
        packed = self.folder / f"{name}.tar"
        checkpoint.pack(model_folder, packed)
        return await self.add_asset(name, "checkpoint", packed, engine=engine, **({"shape_class": SHAPE} | data))

    async def add_empty_checkpoint(self, name: str = "default-sd15", **data: object) -> Asset:
        """Make a public checkpoint for a fake painter."""
        folder = self.folder / f"empty-{name}"
        folder.mkdir()
        (folder / "model_index.json").write_text("{}")
        return await self.add_checkpoint(name, folder, **data)

    async def generation(self, generation_id: str | None = None) -> Generation:
        """Return the row of a request; without an id, the only row."""
        async with self.database.begin() as session:
            query = select(Generation) if generation_id is None else select(Generation).where(Generation.id == generation_id)
            return (await session.scalars(query)).one()

    async def until_begun(self, painter: FakePainter) -> None:
        """Wait until the painter has begun."""

        async def begun() -> bool | None:
            return True if painter.begun.is_set() else None

        await eventually(begun)

    async def submit(self, **body: object) -> str:
        """Ask asynchronously and return the response's id; retry while the broker is unavailable."""

        async def taken() -> httpx.Response | None:
            answer = await self.client.post("/generate/sd", json={"prompt": "a star", **body}, headers={"X-OctoAI-Async": "1"})
            return None if answer.status_code == 503 else answer

        answer = await eventually(taken)
        assert answer.status_code == 200, answer.text
        return answer.json()["response_id"]

    async def finished(self, generation_id: str) -> Generation:
        """Wait until a request has ended, and return its row."""

        async def ended() -> Generation | None:
            generation = await self.generation(generation_id)
            return generation if generation.finished_at else None

        return await eventually(ended)

    async def expire_claims(self) -> None:
        """Make every claim expire."""
        async with self.database.begin() as session:
            expired = update(Generation).where(Generation.state == "running").values(claim_expires_at=Generation.created_at)
            await session.execute(expired)

    @asynccontextmanager
    async def worker(
        self, painter: Any = None, *, hears: bool = False, group: str = "", **settings: object
    ) -> AsyncIterator[Worker]:
        """Run a worker, with this painter or the real one. It polls for rows; with `hears` it also gets hints."""
        chosen = self.worker_settings.model_copy(update=settings)
        worker = Worker(chosen, self.database, self.blobs)
        worker.name = new_id("worker")
        worker._painter = painter or worker_service._make_painter(chosen)
        consumers = Consumers(context=Context.IMAGES, group=group or new_id("group"), database=self.database, settings=chosen)
        consumers.on(ImageRequested)(worker.hear)
        async with Background() as background:
            background.run("worker", worker.run)
            if hears:
                background.run("consumers", consumers.run)
            yield worker
            await worker.stop()


@asynccontextmanager
async def make_world(
    database_url: str, blobs: Blobs, make_settings: Callable[..., Any], folder: Path, **settings: object
) -> AsyncIterator[InferenceWorld]:
    """Build a world whose API is served."""
    database = Database(database_url, pool_size=20)
    quick = {"outbox_poll_s": 0.1, "reconcile_every_s": 0.2, "max_requests_per_minute": 100_000} | settings
    world = InferenceWorld(
        database=database,
        blobs=blobs,
        settings=make_settings(InferenceSettings, **quick),
        worker_settings=make_settings(WorkerSettings, poll_s=0.1, device="cpu"),
        folder=folder,
    )
    async with world.serving():
        yield world
    with contextlib.suppress(asyncio.CancelledError):
        await database.close()
