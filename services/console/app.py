"""Wires the console."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from fastapi import FastAPI

from services.console import api
from services.console.service import Platform
from services.console.settings import ConsoleSettings
from services.console.site import BUILT, Pages
from shared.http import app as web

_TIMEOUT_S = 3.0


def create_app(settings: ConsoleSettings, pages: Path = BUILT) -> FastAPI:
    """Build the console's application, with the built pages in this folder."""
    client = httpx.AsyncClient(timeout=_TIMEOUT_S)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncGenerator[None]:
        async with client:
            yield

    app = web.create_app("console", lifespan=lifespan, openapi_url=None)
    app.title = "Tunesmith"
    terms_url = str(settings.terms_url) if settings.terms_url else None
    if terms_url:
        app.terms_of_service = terms_url
        app.description = f"Uploads are subject to these terms of use: <{terms_url}>."
    api.mount(app, Platform(settings, client), Pages(pages), settings.public_url, terms_url)
    return app
