"""The start page, the merged API description, and the page that shows it."""

from pathlib import Path

import fastapi_offline
from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates

from services.console.openapi import merge
from services.console.service import Platform

_PAGES = Jinja2Templates(Path(__file__).parent / "pages")
_SWAGGER = StaticFiles(directory=Path(fastapi_offline.__file__).parent / "static")


def mount(app: FastAPI, platform: Platform, public_url: str, terms_url: str | None) -> None:
    """Add the console's pages to its application."""
    # The merged document replaces FastAPI's own, which describes only the console.
    own = app.openapi
    app.mount("/docs/static", _SWAGGER)
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def start(request: Request) -> HTMLResponse:
        context = {"processes": await platform.statuses(), "public_url": public_url, "terms_url": terms_url}
        return _PAGES.TemplateResponse(request, "start.html", context)

    @router.get("/openapi.json")
    async def openapi() -> JSONResponse:
        return JSONResponse(merge(own(), await platform.documents()))

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Tunesmith API",
            swagger_js_url="/docs/static/swagger-ui-bundle.js",
            swagger_css_url="/docs/static/swagger-ui.css",
            swagger_favicon_url="/docs/static/favicon.png",
        )

    app.include_router(router)
