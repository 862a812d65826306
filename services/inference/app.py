"""Wires the image API."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.inference import api, repository
from services.inference.generations import api as generations_api
from services.inference.generations.repository import expired_progress
from services.inference.generations.service import GenerationService
from services.inference.generations.stream import GenerationStreams
from services.inference.service import ImageService
from services.inference.settings import InferenceSettings
from shared.background import Background
from shared.blobs import rows as blob_rows
from shared.blobs.collector import BlobCollector
from shared.blobs.store import Blobs
from shared.database import retention
from shared.database.notifications import GENERATIONS, Notifications
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.http import app as web
from shared.http import idempotency
from shared.http.auth import FLUSH_EVERY_S, Authenticator
from shared.messaging import inbox
from shared.messaging.relay import MEASURE_EVERY_S, Relay

_HOUR_S = 3600.0
_COLLECT_EVERY_S = 60.0


def create_app(settings: InferenceSettings) -> FastAPI:
    """Build the image API's application."""
    database, blobs = Database.from_settings(settings, application_name="inference"), Blobs.from_settings(settings)
    requests = Database.for_requests(settings, application_name="inference")
    service = ImageService(settings, requests, blobs, background=database)
    notifications = Notifications(settings, GENERATIONS)
    generations = GenerationService(settings, requests, blobs, service.intake)
    streams = GenerationStreams(requests, generations.answers, notifications, settings)
    collector = BlobCollector(
        database,
        blobs,
        Context.IMAGES,
        prefixes=("generations/",),
        grace_s=settings.generation_grace_s,
        staging_s=_HOUR_S,
    )
    relay = Relay(database, Context.IMAGES, settings)
    authenticator = Authenticator(requests, settings, service="inference")

    async def forget() -> None:
        await retention.forget(
            database,
            "images",
            inbox.expired(Context.IMAGES),
            idempotency.expired(Context.IMAGES),
            repository.expired(settings.generation_kept_s),
            expired_progress(),
            blob_rows.expired(Context.IMAGES, settings.deleted_kept_s),
        )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        app.state.authenticator = authenticator
        async with Background() as background:
            background.run("relay", relay.run)
            background.every("relay-metrics", MEASURE_EVERY_S, relay.measure)
            background.run("hints", service.hints.run)
            background.run("notifications", notifications.run)
            background.every("reconciler", settings.reconcile_every_s, service.reconcile)
            background.every("collector", _COLLECT_EVERY_S, collector.collect)
            background.every("sweep", _HOUR_S, collector.sweep)
            background.every("forget", _HOUR_S, forget)
            background.every("last-use", FLUSH_EVERY_S, authenticator.flush_last_use)
            yield
        await authenticator.close()
        await blobs.close()
        await requests.close()
        await database.close()

    return web.create_app(
        "inference",
        lifespan=lifespan,
        routers=[api.router(service, settings), generations_api.router(requests, generations, streams, settings)],
        ready={"database": requests.ping},
    )
