"""The services that accounts call, on real backends in this process, behind one origin as behind the edge."""

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import uvicorn
from fastapi import FastAPI
from sqlalchemy import func, select, update
from starlette.types import Receive, Scope, Send

from services.console.app import create_app as create_console
from services.console.openapi import merge
from services.console.settings import ConsoleSettings
from services.inference.app import create_app as create_inference
from services.inference.inputs import Result, StoredImage
from services.inference.settings import InferenceSettings
from services.scheduler.app import create_app as create_scheduler
from services.scheduler.settings import SchedulerSettings
from services.upload.app import create_app as create_upload
from services.upload.settings import UploadSettings
from shared.accounts import accounts
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.database.tables import ApiKey, Context, Generation, Tune
from shared.ids import new_id
from shared.settings import ServiceSettings
from tests.support.world import CHECKPOINT, SD15, World

PREFIXES = {
    "/v1/assets": "upload",
    "/v1/tune": "scheduler",
    "/v1/tunes": "scheduler",
    "/v1/datasets": "scheduler",
    "/v1/admin": "scheduler",
    "/console/login": "scheduler",
    "/generate": "inference",
    "/v1/generations": "inference",
    "/v1/engines": "inference",
}
"""Where the edge sends each path; the rest is the console's."""
MakeSettings = Callable[..., Any]


def applications(make_settings: MakeSettings, **overrides: Any) -> dict[str, FastAPI]:
    """Build each API service."""
    return {
        "upload": create_upload(make_settings(UploadSettings, **overrides)),
        "scheduler": create_scheduler(make_settings(SchedulerSettings, **overrides)),
        "inference": create_inference(make_settings(InferenceSettings, **overrides)),
    }


def document(apps: dict[str, FastAPI], console: FastAPI) -> dict[str, Any]:
    """Return the API description that clients get."""
    return merge(console.openapi(), {name: app.openapi() for name, app in apps.items()})


def operations(document: dict[str, Any]) -> list[str]:
    """Return every `METHOD /path` of an API description."""
    methods = {"get", "post", "put", "patch", "delete", "head", "options"}
    return sorted(f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item if method in methods)


class Origin:
    """Sends each request to its service; each service's own description lies under `/-/NAME`."""

    def __init__(self, apps: dict[str, FastAPI]) -> None:
        self._apps = apps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path.startswith("/-/"):
            name, _, rest = path.removeprefix("/-/").partition("/")
            await self._apps[name](scope | {"path": f"/{rest}"}, receive, send)
            return
        part = next((part for prefix, part in PREFIXES.items() if path == prefix or path.startswith(prefix + "/")), "console")
        await self._apps[part](scope, receive, send)


@dataclass(kw_only=True)
class Platform(World):
    """The running services, and ways to write the rows that other processes would write."""

    app: Origin
    url: str
    document: dict[str, Any]

    async def dead_keys(self, account_id: UUID) -> dict[str, str]:
        """Make a revoked and an expired key that had every scope."""
        found = {}
        for kind, change in (
            ("revoked", {"revoked_at": func.now()}),
            ("expired", {"expires_at": datetime.now(UTC) - timedelta(1)}),
        ):
            async with self.database.begin() as session:
                key_id, found[kind] = await accounts.create_key(session, account_id, name=kind, scopes=accounts.SCOPES)
                await session.execute(update(ApiKey).where(ApiKey.id == key_id).values(change))
        return found

    def client(self, secret: str | None) -> httpx.AsyncClient:
        """Return a client of the origin with this key."""
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60)

    async def add_asset(self, account_id: UUID, name: str, asset_type: str = "file", **values: Any) -> str:
        """Put a ready asset into the library, as intake does, and return its id."""
        data = {"asset_type": "file"} if asset_type == "file" else CHECKPOINT | {"asset_type": asset_type}
        return (await self.put_asset(account_id, name, asset_type, data=data, **values)).id

    async def add_generation(self, account_id: UUID, *, is_history: bool = False) -> str:
        """Put a finished image request into its table, as the worker does: one of the history, or one of `/generate`."""
        generation_id = new_id("gen")
        ref = {"name": "x", "asset_id": "x", "blob_key": "x", "sha256": "x"}
        drawn = {"engine": SD15, "base": ref, "loras": [], "prompt": "", "negative_prompt": "", "prompt_2": None}
        drawn |= {"negative_prompt_2": None, "sampler": "DDIM", "width": 512, "height": 512, "cfg_scale": 7, "steps": 1}
        async with self.database.begin() as session:
            session.add(
                Generation(
                    id=generation_id,
                    account_id=account_id,
                    engine=SD15,
                    affinity="x",
                    inputs=drawn | {"seeds": [], "image_encoding": "png"},
                    request={"prompt": ""} if is_history else None,
                    endpoint="sd" if is_history else None,
                    state="succeeded",
                    result=Result(pictures=[], prediction_time_ms=1.0, notices=[]).model_dump(mode="json"),
                    finished_at=func.now(),
                )
            )
        return generation_id

    async def add_base(self) -> None:
        """Register the small checkpoint as a public asset, under its own name and as the default."""
        for name in ("tiny-sd15", "default-sd15"):
            await self.add_asset(await self.platform_account(), name, "checkpoint", is_public=True)

    async def tunes_of(self, account_id: UUID) -> int:
        async with self.database.begin() as session:
            return await session.scalar(select(func.count()).where(Tune.account_id == account_id)) or 0

    async def draw(self) -> None:
        """Answer image requests until cancelled, as a GPU worker does: one object of eight bytes for each seed."""
        key = f"generations/{new_id('gen')}/0.png"
        await self.put(key, b"\x89PNG\r\n\x1a\n", Context.IMAGES)
        while True:
            async with self.database.begin() as session:
                for waiting in await session.scalars(select(Generation).where(Generation.finished_at.is_(None)).limit(10)):
                    stored = [StoredImage(key=key, seed=seed) for seed in waiting.inputs["seeds"]]
                    result = Result(pictures=stored, prediction_time_ms=1.0, notices=[]).model_dump(mode="json")
                    values = {"state": "succeeded", "result": result, "finished_at": func.now()}
                    await session.execute(update(Generation).where(Generation.id == waiting.id).values(values))
            await asyncio.sleep(0.05)


@asynccontextmanager
async def running(make_settings: MakeSettings, blobs: Blobs, **overrides: Any) -> AsyncIterator[Platform]:
    """Run the services and serve them on a loopback port."""
    # Bind the socket first: the settings name its address.
    config = uvicorn.Config(lambda: None, host="127.0.0.1", port=0, log_config=None, lifespan="off", factory=False)
    socket = config.bind_socket()
    url = f"http://127.0.0.1:{socket.getsockname()[1]}"
    apps = applications(make_settings, reconcile_every_s=1.0, **overrides)
    ports = {f"{name}_url": f"{url}/-/{name}" for name in apps}
    console = create_console(make_settings(ConsoleSettings, **ports))
    origin = Origin(apps | {"console": console})
    config.app = origin
    config.load()
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[method-assign]
    database = Database(make_settings(ServiceSettings).database_url.get_secret_value())
    async with AsyncExitStack() as stack:
        for app in [*apps.values(), console]:
            await stack.enter_async_context(app.router.lifespan_context(app))
        serving = asyncio.create_task(server.serve([socket]))
        try:
            yield Platform(database=database, blobs=blobs, app=origin, url=url, document=document(apps, console))
        finally:
            server.should_exit = True
            await serving
            await database.close()
    # A client of the broker whose stop runs into its bound leaves a connection open, which warns when it is collected.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@asynccontextmanager
async def drawing(platform: Platform) -> AsyncIterator[None]:
    """Answer image requests during the block, which begins once the image API hears the broker."""
    task = asyncio.create_task(platform.draw())
    try:
        secret = await platform.key(await platform.account("first"))
        async with platform.client(secret) as client:
            while (await client.post("/generate/sd", json={"prompt": "a dog"})).status_code == httpx.codes.SERVICE_UNAVAILABLE:
                await asyncio.sleep(0.1)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
