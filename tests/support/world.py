"""What the worlds of the services' tests are built on: a database and a store, and the rows that other services write there."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import httpx
from fastapi import APIRouter, FastAPI
from sqlalchemy import delete, select

from shared.accounts import accounts, names
from shared.background import Background
from shared.blobs import rows as blob_rows
from shared.blobs.store import Blobs, Stored
from shared.database.sessions import Database
from shared.database.tables import OUTBOXES, Asset, Context
from shared.http import app as web
from shared.http.auth import Authenticator
from shared.ids import new_id

SD15 = "image/stable-diffusion-v1-5"
CHECKPOINT = {"asset_type": "checkpoint", "engine": SD15, "native_size_px": 64, "shape_class": "sd15-3f2a9c1d"}
"""What the library says of a small checkpoint."""


@dataclass(kw_only=True)
class World:
    """A database and a store, with accounts, objects and assets."""

    context: ClassVar[Context]
    """Whose outbox `waiting_events` reads."""
    database: Database
    blobs: Blobs

    async def account(self, name: str) -> UUID:
        """Return the id of the account with this name, which is created if there is none."""
        async with self.database.begin() as session:
            return await accounts.create_account(session, name)

    async def platform_account(self) -> UUID:
        """Return the id of the platform's account, which is created if there is none."""
        async with self.database.begin() as session:
            return await accounts.create_account(session, accounts.PLATFORM_ACCOUNT, is_platform=True)

    async def key(self, account_id: UUID, *scopes: str) -> str:
        """Make a key with these scopes; without any, with those of an account's first key."""
        async with self.database.begin() as session:
            _, secret = await accounts.create_key(session, account_id, name="key", scopes=scopes or accounts.USER_SCOPES)
        return secret

    async def connect(self, app: Any, account_id: UUID, *scopes: str, origin: str = "http://service.test") -> httpx.AsyncClient:
        """Return a client of an application in this process, with a new key of the account."""
        headers = {"Authorization": f"Bearer {await self.key(account_id, *scopes)}"}
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=origin, headers=headers, timeout=120)

    async def put(self, key: str, content: bytes | Path, owner: Context = Context.UPLOAD) -> Stored:
        """Store an object with its committed row."""
        async with self.database.begin() as session:
            await blob_rows.stage(session, owner, key)
        stored = await (self.blobs.put_file(key, content) if isinstance(content, Path) else self.blobs.put_bytes(key, content))
        async with self.database.begin() as session:
            await blob_rows.commit(session, key, stored)
        return stored

    async def put_row(self, key: str, sha256: str = "ab" * 32, owner: Context = Context.UPLOAD) -> Stored:
        """Commit the row of an object that no test reads, and store nothing."""
        stored = Stored(sha256, 1)
        async with self.database.begin() as session:
            await blob_rows.stage(session, owner, key)
            await blob_rows.commit(session, key, stored)
        return stored

    async def put_asset(
        self,
        account_id: UUID,
        name: str,
        asset_type: str = "file",
        content: bytes | Path | None = None,
        *,
        asset_id: str | None = None,
        status: str = "ready",
        **values: Any,
    ) -> Asset:
        """Put an asset into an account's library, as upload does; without content, its object is missing from the store."""
        asset_id = asset_id or new_id("asset")
        key = f"assets/{asset_id}/{name}"
        stored = await self.put_row(key) if content is None else await self.put(key, content)
        async with self.database.begin() as session:
            asset = Asset(
                id=asset_id,
                account_id=account_id,
                asset_type=asset_type,
                name=name,
                status=status,
                size_bytes=stored.size_bytes,
                sha256=stored.sha256,
                blob_key=key if status == "ready" else None,
                **({"data": {"asset_type": asset_type}} | values),
            )
            session.add(asset)
            await session.flush()
            await names.reserve(session, account_id, name, "asset", asset_id)
        return asset

    async def waiting_events(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the events in the outbox in order, each as its type and body."""
        table = OUTBOXES[self.context]
        async with self.database.begin() as session:
            rows = await session.execute(select(table.c.headers, table.c.body).order_by(table.c.id))
            return [(headers["ce_type"], json.loads(body)) for headers, body in rows]

    async def forget_events(self) -> None:
        """Empty the outbox."""
        async with self.database.begin() as session:
            await session.execute(delete(OUTBOXES[self.context]))


def routes_alone(service: str, database: Database, routers: Sequence[APIRouter]) -> FastAPI:
    """Return a service's application without its background tasks: the test runs those that it needs."""
    app = web.create_app(service, lifespan=lambda _app: Background(), routers=routers)  # pyright: ignore[reportArgumentType] - never entered
    app.state.authenticator = Authenticator(database)
    return app
