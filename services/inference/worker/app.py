"""Wires an image worker."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.inference.worker.service import Worker
from services.inference.worker.settings import WorkerSettings
from shared.background import Background
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.http import app as web
from shared.messaging.consumer import Consumers
from shared.messaging.events import ImageRequested


def create_app(settings: WorkerSettings) -> FastAPI:
    """Build the worker's application: its probes, and its work in the background."""
    database, blobs = Database.from_settings(settings, application_name="inference-worker", kept=2), Blobs.from_settings(settings)
    worker = Worker(settings, database, blobs)
    consumers = Consumers(context=Context.IMAGES, group="image-workers", database=database, settings=settings)
    consumers.on(ImageRequested)(worker.hear)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        async with Background() as background:
            background.run("worker", worker.run)
            background.run("consumers", consumers.run)
            yield
            await worker.stop()
        await blobs.close()
        await database.close()

    return web.create_app(
        "inference-worker",
        lifespan=lifespan,
        ready={"models": worker.ready, "database": database.ping},
        live={"consumers": consumers.alive},
    )
