"""Wires the scheduler."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.scheduler import api, consumers
from services.scheduler.admin import api as admin
from services.scheduler.datasets import api as datasets_api
from services.scheduler.events import api as events_api
from services.scheduler.events.service import EventReader, EventStreams
from services.scheduler.logins import api as logins_api
from services.scheduler.service import TuneService
from services.scheduler.settings import SchedulerSettings
from services.scheduler.watch import QueueMeter, Reaper, Reconciler
from services.scheduler.webhooks import api as webhooks_api
from services.scheduler.webhooks.service import Webhooks
from services.scheduler.whatif.service import WhatIfService
from shared.background import Background
from shared.blobs.collector import BlobCollector
from shared.blobs.store import Blobs
from shared.database.notifications import Notifications
from shared.database.sessions import Database
from shared.database.tables import Context
from shared.http import app as web
from shared.http.auth import FLUSH_EVERY_S, Authenticator
from shared.messaging.consumer import Consumers
from shared.messaging.relay import MEASURE_EVERY_S, Relay
from shared.tunes.transitions import CHANNEL

_HOUR_S = 3600.0
_COLLECT_EVERY_S = 60.0


def create_app(settings: SchedulerSettings) -> FastAPI:
    """Build the scheduler's application."""
    database = Database.from_settings(settings, application_name="scheduler")
    requests = Database.for_requests(settings, application_name="scheduler")
    blobs = Blobs.from_settings(settings)
    service = TuneService(settings, blobs)
    event_consumers = Consumers(context=Context.TUNES, group="scheduler", database=database, settings=settings)
    consumers.register(event_consumers, service)
    notifications = Notifications(settings, CHANNEL)
    reader = EventReader(blobs)
    streams = EventStreams(requests, reader, notifications, settings)
    webhooks = Webhooks(database, notifications, settings)
    reaper = Reaper(database, lease_s=settings.lease_s)
    reconciler = Reconciler(database, service)
    collector = BlobCollector(
        database,
        blobs,
        Context.TUNES,
        prefixes=("tunes/",),
        grace_s=settings.blob_grace_s,
        staging_s=settings.blob_staging_s,
    )
    relay = Relay(database, Context.TUNES, settings)
    authenticator = Authenticator(requests, settings, service="scheduler")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        app.state.authenticator = authenticator
        async with Background() as background:
            background.run("relay", relay.run)
            background.every("relay-metrics", MEASURE_EVERY_S, relay.measure)
            background.run("consumers", event_consumers.run)
            background.run("notifications", notifications.run)
            background.run("webhooks", webhooks.run)
            background.every("reaper", settings.reap_every_s, reaper.run_once)
            background.every("queue-metrics", MEASURE_EVERY_S, QueueMeter(database).run_once)
            background.every("reconciler", settings.reconcile_every_s, reconciler.run_once)
            background.every("collector", _COLLECT_EVERY_S, collector.collect)
            background.every("sweep", _HOUR_S, collector.sweep)
            background.every("forget", _HOUR_S, reconciler.forget)
            background.every("forget-webhooks", _HOUR_S, webhooks.forget)
            background.every("last-use", FLUSH_EVERY_S, authenticator.flush_last_use)
            yield
        await authenticator.close()
        await blobs.close()
        await requests.close()
        await database.close()

    routers = [
        api.router(requests, service, WhatIfService(requests, blobs, settings)),
        events_api.router(requests, service, reader, streams),
        webhooks_api.router(requests, service),
        admin.router(requests),
        datasets_api.router(requests),
        logins_api.router(database, settings.public_url),
    ]
    return web.create_app(
        "scheduler",
        lifespan=lifespan,
        routers=routers,
        ready={"database": requests.ping},
        live={"consumers": event_consumers.alive},
    )
