"""Wires the trainer."""

import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.trainer.service import HINTS, TrainerService
from services.trainer.settings import TrainerSettings
from shared.background import Background
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.http import app as web
from shared.messaging.hints import Hints

_POOL_SHARE = 0.4
"""A trainer renews, reports, stores and heartbeats at the same time, and there may be hundreds of trainers."""


def create_app(settings: TrainerSettings) -> FastAPI:
    """Build the trainer: probes over HTTP, tunes in the background."""
    database = Database.from_settings(settings, application_name="trainer", share=_POOL_SHARE, kept=1)
    blobs = Blobs.from_settings(settings)
    trainer = TrainerService(database, blobs, settings)
    hints = Hints(settings, HINTS, trainer.hear)
    trainer.hints_arrive = hints.listening

    async def train() -> None:
        await trainer.run()
        if trainer.is_done:
            os.kill(os.getpid(), signal.SIGTERM)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        async with Background() as background:
            background.run("trainer", train)
            background.run("hints", hints.run)
            background.every("heartbeat", settings.heartbeat_every_s, trainer.heartbeat)
            yield
            await trainer.drain()
        await blobs.close()
        await database.close()

    return web.create_app("trainer", lifespan=lifespan, ready={"database": database.ping, "child": trainer.ready})
