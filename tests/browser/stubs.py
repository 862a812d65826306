"""The console's pages with an API of given answers: states that a real stack cannot be brought into on demand."""

import base64
import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import uvicorn
from PIL import Image, ImageDraw
from playwright.sync_api import Page, Route

from services.console.app import create_app
from services.console.settings import ConsoleSettings

Answer = Any
Handler = Callable[["Asked"], Answer]
UNAVAILABLE = dict.fromkeys(("upload_url", "scheduler_url", "inference_url"), "http://127.0.0.1:9")
SCOPES = ["assets", "tunes", "images", "keys"]


@contextmanager
def served() -> Iterator[str]:
    """Serve the built pages with their headers, and return their address."""
    app = create_app(ConsoleSettings(**UNAVAILABLE))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@dataclass(frozen=True)
class Asked:
    """A request of the page."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: Any
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Failed:
    """An answer that is no success."""

    status: int
    code: str
    detail: str


@dataclass(frozen=True)
class Events:
    """Server-sent events; the stream ends after them, and the browser connects again."""

    events: list[tuple[str, Any]]


@dataclass
class StubApi:
    """Answers the page's requests; whatever has no answer is a failure of the test."""

    url: str
    handlers: list[tuple[str, re.Pattern[str], Handler]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def on(self, method: str, path: str, answer: Answer) -> None:
        """Answer requests to this path, a pattern, with this value or with what this function returns; the last one wins."""
        handler: Handler = answer if callable(answer) else lambda _asked: answer
        self.handlers.insert(0, (method, re.compile(path), handler))

    def sent(self, method: str, path: str) -> list[Asked]:
        """Return the requests that the page sent."""
        return [asked for asked in self.asked if asked.method == method and re.fullmatch(path, asked.path)]

    def attach(self, page: Page) -> None:
        """Answer what this page asks of the API and of the store."""
        page.route(re.compile(rf"^{re.escape(self.url)}/(v1|console|store)/"), self._handle)

    def _handle(self, route: Route) -> None:
        request = route.request
        parts = urlsplit(request.url)
        for method, pattern, handler in self.handlers:
            found = pattern.fullmatch(parts.path)
            if method == request.method and found:
                body = json.loads(request.post_data) if request.post_data else None
                asked = Asked(method, parts.path, parse_qs(parts.query), body, found.groups())
                self.asked.append(asked)
                return _fulfill(route, handler(asked))
        self.unknown.append(f"{request.method} {parts.path}")
        return route.fulfill(status=404, json={"detail": "no answer", "code": "not_found"})


def _fulfill(route: Route, answer: Answer) -> None:
    if isinstance(answer, Failed):
        route.fulfill(status=answer.status, json={"detail": answer.detail, "code": answer.code})
    elif isinstance(answer, Events):
        lines = [f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in answer.events]
        route.fulfill(status=200, content_type="text/event-stream", body="retry: 200\n\n" + "".join(lines))
    elif isinstance(answer, bytes):
        route.fulfill(status=200, content_type="image/png", body=answer)
    elif answer is None:
        route.fulfill(status=204)
    else:
        route.fulfill(status=200, json=answer)


def signed_in(api: StubApi, scopes: list[str] | None = None) -> None:
    """Answer what every page asks for."""
    api.on("GET", "/console/login", {
        "account": {"id": "account_1", "name": "studio"},
        "key": {"id": "key_1", "name": "laptop", "hint": "tsk_abcdef", "expires_at": None},
        "scopes": SCOPES if scopes is None else scopes,
    })  # fmt: skip
    api.on("GET", "/console/system", {"public_url": api.url, "terms_url": None, "parts": []})
    api.on("GET", "/v1/tunes", {"data": [], "has_more": False, "total": 0})


def painted(seed: int, width: int = 512, height: int = 512) -> bytes:
    """Return an image that looks like something, as a PNG."""
    image = Image.new("RGB", (width, height), _color(seed, 60))
    pen = ImageDraw.Draw(image)
    pen.ellipse([width * 0.55, height * 0.1, width * 0.8, height * 0.1 + width * 0.25], fill=_color(seed + 3, 200))
    pen.polygon([(0, height), (width * 0.35, height * 0.4), (width * 0.7, height)], fill=_color(seed + 1, 120))
    pen.polygon([(width * 0.4, height), (width * 0.75, height * 0.55), (width, height)], fill=_color(seed + 2, 90))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _color(seed: int, light: int) -> tuple[int, int, int]:
    return ((light + 37 * seed) % 256, (light + 91 * seed) % 256, (light + 59 * seed) % 256)


def data_url(content: bytes) -> str:
    """Return an image as a data URL."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"
