"""Wires the console."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from services.console import api
from services.console.service import Platform
from services.console.settings import ConsoleSettings
from shared import web

_TIMEOUT_S = 3.0


def create_app(settings: ConsoleSettings) -> FastAPI:
    """Build the console's application."""
    client = httpx.AsyncClient(timeout=_TIMEOUT_S)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    app = web.create_app("console", lifespan=lifespan, openapi_url=None)
    app.title = "Tunesmith"
    api.mount(app, Platform(settings, client), settings.public_url)
    return app
