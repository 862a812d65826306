"""Wires the upload service."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.upload import api, consumers
from services.upload.downloads import PREFIX as DOWNLOADS
from services.upload.downloads import Downloads
from services.upload.imports.fetching import Fetcher
from services.upload.imports.importer import Importer
from services.upload.intake.check import Intake
from services.upload.intake.register import Registration
from services.upload.reconciler import Reconciler
from services.upload.service import Library
from services.upload.settings import UploadSettings
from services.upload.staging import StagingCheck
from services.upload.thumbnails import Thumbnails
from services.upload.work import WorkQueue
from shared.background import Background
from shared.blobs.collector import BlobCollector
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.http import app as web
from shared.http.auth import FLUSH_EVERY_S, Authenticator
from shared.messaging.relay import MEASURE_EVERY_S, Relay
from shared.scratch import Scratch

_HOUR_S = 3600.0
_THUMBNAILS_EVERY_S = 2.0
_STAGING_S = 6 * 3600.0
"""Longer than any intake takes. A copy that was staged earlier and never committed is garbage."""


def create_app(settings: UploadSettings) -> FastAPI:
    """Build the upload service's application."""
    database = Database.from_settings(settings, application_name="upload")
    requests = Database.for_requests(settings, application_name="upload")
    blobs = Blobs.from_settings(settings)
    fetcher = Fetcher(settings)
    library = Library(blobs, settings)
    scratch = Scratch(settings.work_dir, leftovers=("intake-*", "import-*", "registration-*", "thumbnail-*"))
    importer = Importer(database, blobs, settings, fetcher, scratch)
    intake = Intake(database, blobs, settings, scratch)
    registration = Registration(database, blobs, settings, scratch)
    downloads = Downloads(requests, blobs, settings, scratch)
    # Uploads may be slow: the LoRAs of tunes do not wait for them.
    uploads, loras = WorkQueue(settings.intake_concurrency), WorkQueue(settings.registration_concurrency)
    reconciler = Reconciler(database, settings, registration, loras)
    group = consumers.create(database, settings, uploads, loras, intake, registration)
    collector = BlobCollector(
        database,
        blobs,
        Context.UPLOAD,
        prefixes=("staging/", "assets/", DOWNLOADS),
        grace_s=settings.blob_grace_s,
        staging_s=_STAGING_S,
    )

    async def abort_abandoned_parts() -> None:
        await blobs.abort_uploads("staging/", settings.upload_url_s)

    staging = StagingCheck(database, blobs)
    relay = Relay(database, Context.UPLOAD, settings)
    thumbnails = Thumbnails(database, blobs, scratch)
    authenticator = Authenticator(requests, settings, service="upload")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        app.state.authenticator = authenticator
        async with Background() as background:
            background.run("relay", relay.run)
            background.every("relay-metrics", MEASURE_EVERY_S, relay.measure)
            background.run("intake", uploads.run)
            background.run("registration", loras.run)
            background.every("intake-heartbeat", settings.intake_bound_s / 3, intake.heartbeat)
            background.run("imports", importer.run)
            background.every("import-heartbeat", settings.import_silence_s / 3, importer.heartbeat)
            background.run("consumers", group.run)
            background.every("reconciler", settings.reconcile_every_s, reconciler.run_once)
            background.every("collector", settings.collect_every_s, collector.collect)
            background.every("thumbnails", _THUMBNAILS_EVERY_S, thumbnails.run_once)
            background.every("sweep", settings.sweep_every_s, collector.sweep)
            background.every("staging", settings.staging_check_s, staging.run_once)
            background.every("abandoned-parts", settings.sweep_every_s, abort_abandoned_parts)
            background.every("forget", _HOUR_S, reconciler.forget)
            background.every("last-use", FLUSH_EVERY_S, authenticator.flush_last_use)
            yield
        await authenticator.close()
        await fetcher.close()
        await blobs.close()
        await requests.close()
        await database.close()

    live = {"consumers": group.alive}
    ready = {"database": requests.ping, "store": blobs.ping}
    routers = [api.router(requests, library, blobs, importer), api.download_routes(requests, library, downloads)]
    return web.create_app("upload", lifespan=lifespan, routers=routers, ready=ready, live=live)
