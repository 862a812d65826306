"""The scheduler's API on a real database, with assets that the tests write into the library themselves."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
from fastapi import FastAPI
from sqlalchemy import func, select, update

from services.scheduler import api
from services.scheduler.datasets import api as datasets_api
from services.scheduler.events import api as events_api
from services.scheduler.events.service import EventReader, EventStreams
from services.scheduler.service import TuneService
from services.scheduler.settings import SchedulerSettings
from services.scheduler.webhooks import api as webhooks_api
from services.scheduler.whatif.service import WhatIfService
from shared.blobs.store import Blobs
from shared.database.notifications import Notifications
from shared.database.sessions import Database
from shared.database.tables import Asset, AssetName, Context, Tune, TuneEvent
from shared.ids import new_id
from shared.tunes.transitions import CHANNEL
from tests.support.world import CHECKPOINT, World, routes_alone


@dataclass(kw_only=True)
class SchedulerWorld(World):
    """The scheduler's parts, and a client of each of two accounts: the owner of the tunes and a stranger."""

    context = Context.TUNES
    service: TuneService
    client: httpx.AsyncClient
    stranger: httpx.AsyncClient
    account_id: UUID
    platform_id: UUID
    app: FastAPI
    streams: EventStreams
    notifications: Notifications
    settings: SchedulerSettings

    async def add_asset(self, name: str, asset_type: str = "file", **values: Any) -> str:
        """Add an asset to the library of the owner, or of the account in `values`, and return its id."""
        account_id = values.pop("account_id", self.account_id)
        return (await self.put_asset(account_id, name, asset_type, **values)).id

    async def verdict(self, asset_id: str, status: str) -> None:
        """Record the verdict on an uploaded image without publishing its event."""
        key = f"assets/{asset_id}/x.png"
        await self.put_row(key, "cd" * 32)
        async with self.database.begin() as session:
            values = {"status": status, "blob_key": key if status == "ready" else None, "status_details": "not an image"}
            await session.execute(update(Asset).where(Asset.id == asset_id).values(values))

    async def body(self, name: str = "sks1-dog", **details: Any) -> dict[str, Any]:
        """Return a request for a tune on a new image."""
        if "files" not in details:
            details["files"] = [{"file_id": await self.add_asset(new_id("photo"))}]
        base = {"base_checkpoint": {"checkpoint_id": "octoai:tiny-sd15"}, "steps": 10, "trigger_words": ["sks1"]}
        return {"name": name, "details": base | details}

    async def create(self, name: str = "sks1-dog", *, top: dict[str, Any] | None = None, **details: Any) -> dict[str, Any]:
        answer = await self.client.post("/v1/tune", json=await self.body(name, **details) | (top or {}))
        assert answer.status_code == httpx.codes.CREATED, answer.text
        return answer.json()

    async def row(self, tune_id: str) -> Tune:
        async with self.database.begin() as session:
            return await session.get_one(Tune, tune_id)

    async def events(self, tune_id: str) -> list[tuple[int, str]]:
        async with self.database.begin() as session:
            rows = await session.execute(
                select(TuneEvent.sequence, TuneEvent.type).where(TuneEvent.tune_id == tune_id).order_by(TuneEvent.sequence)
            )
            return [(sequence, kind) for sequence, kind in rows]

    async def name_holder(self, name: str) -> str | None:
        async with self.database.begin() as session:
            return await session.scalar(select(AssetName.holder_kind).where(AssetName.name == name))

    async def train(self, tune_id: str) -> None:
        """Move a queued tune to publishing, with its LoRA stored and not registered yet."""
        key = f"tunes/{tune_id}/1/lora.safetensors"
        await self.put_row(key, "ef" * 32, Context.TUNES)
        async with self.database.begin() as session:
            values = {
                "state": "publishing",
                "lease_epoch": 1,
                "lora_key": key,
                "lora_sha256": "ef" * 32,
                "trained_at": func.now(),
            }
            await session.execute(update(Tune).where(Tune.id == tune_id).values(values))


@asynccontextmanager
async def make_world(
    make_settings: Callable[..., SchedulerSettings], database_url: str, blobs: Blobs, **overrides: object
) -> AsyncIterator[SchedulerWorld]:
    """Build a world with the owner's account, a stranger's, and the platform's with its public checkpoint tiny-sd15."""
    database = Database(database_url)
    settings = make_settings(SchedulerSettings, **overrides)
    service = TuneService(settings, blobs)
    reader, notifications = EventReader(blobs), Notifications(settings, CHANNEL)
    streams = EventStreams(database, reader, notifications, settings)
    routers = [
        api.router(database, service, WhatIfService(database, blobs, settings)),
        events_api.router(database, service, reader, streams),
        webhooks_api.router(database, service),
        datasets_api.router(database),
    ]
    app = routes_alone("scheduler", database, routers)
    base = World(database=database, blobs=blobs)
    account_id, platform_id = await base.account("studio"), await base.platform_account()
    world = SchedulerWorld(
        database=database,
        blobs=blobs,
        service=service,
        client=await base.connect(app, account_id),
        stranger=await base.connect(app, await base.account("stranger")),
        account_id=account_id,
        platform_id=platform_id,
        app=app,
        streams=streams,
        notifications=notifications,
        settings=settings,
    )
    await world.add_asset("tiny-sd15", "checkpoint", account_id=platform_id, is_public=True, data=CHECKPOINT)
    yield world
    await world.client.aclose()
    await world.stranger.aclose()
    await database.close()
