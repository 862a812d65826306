"""The web pages, what they need to know of the platform, the merged API description, and the page that shows it."""

from dataclasses import asdict
from pathlib import Path

import fastapi_offline
from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates

from services.console.openapi import merge
from services.console.service import Platform
from services.console.site import Pages
from shared.errors import NotFoundError

_PAGES = Jinja2Templates(Path(__file__).parent / "pages")
_SWAGGER = StaticFiles(directory=Path(fastapi_offline.__file__).parent / "static")


def mount(app: FastAPI, platform: Platform, pages: Pages, public_url: str, terms_url: str | None) -> None:
    """Add the console's pages to its application. While they are not built, the start page says how to build it."""
    # The merged document replaces FastAPI's own, which describes only the console.
    own = app.openapi
    app.mount("/docs/static", _SWAGGER)
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def start(request: Request) -> Response:
        if (site := pages.site()) and (page := site.response(request, "/index.html")):
            return page
        context = {"processes": await platform.statuses(), "public_url": public_url, "terms_url": terms_url}
        return _PAGES.TemplateResponse(request, "start.html", context)

    @router.get("/console/system")
    async def system() -> JSONResponse:
        parts = [asdict(status) for status in await platform.statuses()]
        return JSONResponse({"public_url": public_url, "terms_url": terms_url, "parts": parts})

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

    @router.get("/{path:path}")
    async def file(request: Request, path: str) -> Response:
        site = pages.site()
        found = site.response(request, f"/{path}") if site else None
        if found is None:
            msg = f"there is no page at /{path}; the pages are at /, and the API is described at /docs"
            raise NotFoundError(msg)
        return found

    app.include_router(router)
