"""The scheduler's API on a real database, with assets that the tests write into the library themselves."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
from fastapi import FastAPI
from sqlalchemy import func, select, update

from services.scheduler import api
from services.scheduler.events import api as events_api
from services.scheduler.events.service import EventReader, EventStreams
from services.scheduler.notifications import Notifications
from services.scheduler.service import TuneService
from services.scheduler.settings import SchedulerSettings
from services.scheduler.webhooks import api as webhooks_api
from services.scheduler.whatif.service import WhatIfService
from shared.accounts import accounts, names
from shared.background import Background
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs, Stored
from shared.database.sessions import Database
from shared.database.tables import OUTBOXES, Asset, AssetName, Context, Tune, TuneEvent
from shared.http import app as web
from shared.http.auth import Authenticator
from shared.ids import new_id

SD15 = "image/stable-diffusion-v1-5"


@dataclass
class World:
    """The scheduler's parts, and a client of each of two accounts: the owner of the tunes and a stranger."""

    database: Database
    service: TuneService
    client: httpx.AsyncClient
    stranger: httpx.AsyncClient
    account_id: UUID
    platform_id: UUID
    app: FastAPI
    streams: EventStreams
    notifications: Notifications
    settings: SchedulerSettings

    async def add_asset(self, name: str, asset_type: str = "file", *, status: str = "ready", **more: Any) -> str:
        """Add an asset to the library, as the upload service does."""
        asset_id, key = new_id("asset"), f"assets/{name}/{new_id('blob')}"
        async with self.database.begin() as session:
            await blob_rows.stage(session, Context.UPLOAD, key)
            await blob_rows.commit(session, key, Stored("ab" * 32, 1))
            values = {"account_id": self.account_id, "data": {"asset_type": asset_type}} | more
            blob_key = key if status == "ready" else None
            asset = Asset(
                id=asset_id,
                asset_type=asset_type,
                name=name,
                status=status,
                blob_key=blob_key,
                sha256="ab" * 32,
                **values,
            )
            session.add(asset)
            await session.flush()
            await names.reserve(session, asset.account_id, name, "asset", asset_id)
        return asset_id

    async def verdict(self, asset_id: str, status: str) -> None:
        """Record the verdict on an uploaded image without publishing its event."""
        async with self.database.begin() as session:
            key = f"assets/{asset_id}/x.png"
            await blob_rows.stage(session, Context.UPLOAD, key)
            await blob_rows.commit(session, key, Stored("cd" * 32, 1))
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

    async def waiting_events(self) -> list[tuple[str, int]]:
        """Return the type and version of each event in the outbox, in order."""
        outbox = OUTBOXES[Context.TUNES]
        async with self.database.begin() as session:
            rows = await session.execute(select(outbox.c.headers, outbox.c.body).order_by(outbox.c.id))
            return [(headers["ce_type"], json.loads(body)["version"]) for headers, body in rows]

    async def name_holder(self, name: str) -> str | None:
        async with self.database.begin() as session:
            return await session.scalar(select(AssetName.holder_kind).where(AssetName.name == name))

    async def train(self, tune_id: str) -> None:
        """Move a queued tune to publishing, with its LoRA stored and not registered yet."""
        key = f"tunes/{tune_id}/1/lora.safetensors"
        async with self.database.begin() as session:
            await blob_rows.stage(session, Context.TUNES, key)
            await blob_rows.commit(session, key, Stored("ef" * 32, 1))
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
) -> AsyncIterator[World]:
    """Build a world with the owner's account, a stranger's, and the platform's with its public checkpoint tiny-sd15."""
    database = Database(database_url)
    settings = make_settings(SchedulerSettings, **overrides)
    service = TuneService(settings)
    reader, notifications = EventReader(blobs), Notifications(settings)
    streams = EventStreams(database, reader, notifications, settings)
    routers = [
        api.router(database, service, WhatIfService(database, blobs, settings)),
        events_api.router(database, service, reader, streams),
        webhooks_api.router(database, service),
    ]
    app = web.create_app("scheduler", lifespan=lambda _app: Background(), routers=routers)  # pyright: ignore[reportArgumentType] - never entered
    app.state.authenticator = Authenticator(database)

    async def client(account: str) -> tuple[UUID, httpx.AsyncClient]:
        async with database.begin() as session:
            account_id = await accounts.create_account(session, account)
            _, secret = await accounts.create_key(session, account_id, name="key", scopes=accounts.USER_SCOPES)
        headers = {"Authorization": f"Bearer {secret}"}
        transport = httpx.ASGITransport(app)
        return account_id, httpx.AsyncClient(transport=transport, base_url="http://scheduler.test", headers=headers)

    account_id, own = await client("studio")
    _, stranger = await client("stranger")
    async with database.begin() as session:
        platform_id = await accounts.create_account(session, accounts.PLATFORM_ACCOUNT, is_platform=True)
    world = World(database, service, own, stranger, account_id, platform_id, app, streams, notifications, settings)
    data = {"asset_type": "checkpoint", "engine": SD15, "native_size_px": 64, "shape_class": "sd15-3f2a9c1d"}
    await world.add_asset("tiny-sd15", "checkpoint", account_id=platform_id, is_public=True, data=data)
    yield world
    await own.aclose()
    await stranger.aclose()
    await database.close()
