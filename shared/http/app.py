"""The HTTP application of every process: error answers, request ids, health, readiness, metrics, and how it is served."""

import asyncio
import contextlib
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from types import FrameType
from urllib.parse import urlsplit, urlunsplit

import structlog
import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, Histogram, generate_latest
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import InvalidError, TunesmithError, UnavailableError
from shared.failures import is_unavailable, is_value
from shared.http import bodies, openapi
from shared.http.idempotency import REPLAYED_HEADER, Replay
from shared.http.lingering import Lingering
from shared.http.routes import GuardedRoute, guards
from shared.ids import new_id
from shared.settings import ProcessSettings
from shared.shares import current_account
from shared.telemetry import configure_logging, get_logger

log = get_logger(__name__)

Check = Callable[[], Awaitable[object]]
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
_CHECK_TIMEOUT_S = 3.0
_GRACE_S = 20
_REDIRECTS = 3
_STARTUP_FAILURE = 3
REQUEST_ID_HEADER = "X-User-Request-ID"
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{8,64}")
"""The form of an id that a request may bring: it goes into logs and back to the client."""
_SECONDS = Histogram(
    "tunesmith_http_request_seconds",
    "Time from a request to the start of its answer, by route and status.",
    ["method", "route", "status"],
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 120),
)
_HTTP_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}


class _RequestId:
    """Adds an `X-User-Request-ID` to every answer; OctoAI's clients append it to their error texts.

    The edge adds one to the request already. Every log line of the request has it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = REQUEST_ID_HEADER.lower().encode()
        given = next((value for key, value in scope["headers"] if key == name), b"")
        request_id = given.decode() if _REQUEST_ID.fullmatch(given) else new_id("req")
        started, began = False, time.monotonic()

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                # The template of the path, and not the path: ids would make a series each.
                route = getattr(scope.get("route"), "path", "")
                _SECONDS.labels(scope["method"], route, message["status"]).observe(time.monotonic() - began)
                message["headers"] = [*message.get("headers", []), (REQUEST_ID_HEADER.encode(), request_id.encode())]
            await send(message)

        # A caller in this process may go on with its own task after this request.
        caller = current_account.set(None)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_id)
            except Exception as error:
                if started:
                    raise
                # Starlette handles unexpected errors outside of every middleware, so its 500 would have no request id.
                await (await _on_error(Request(scope), error))(scope, receive, send_with_id)
            finally:
                current_account.reset(caller)


class _OneSlash:
    """Serves `//v1/assets` as `/v1/assets`: clients whose base URL ends with a slash send it, and there may be no edge."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("//"):
            scope = {**scope, "path": "/" + scope["path"].lstrip("/")}
        await self._app(scope, receive, send)


class _RelativeRedirects:
    """Writes the address of a redirect to this server as a path.

    Behind a proxy that ends TLS the server sees plain HTTP. An address with `http:` would lead a client, and its key, out of TLS.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        host = next((value for key, value in scope["headers"] if key == b"host"), b"").decode("latin-1")

        async def send_relative(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] // 100 == _REDIRECTS:
                headers = message.get("headers", [])
                message["headers"] = [
                    (key, _path(value, host) if key.lower() == b"location" else value) for key, value in headers
                ]
            await send(message)

        await self._app(scope, receive, send_relative)


def _path(location: bytes, host: str) -> bytes:
    parts = urlsplit(location.decode("latin-1"))
    if not parts.scheme or parts.netloc != host:
        return location
    # Two slashes at the start would name another host.
    path = "/" + parts.path.lstrip("/")
    return urlunsplit(("", "", path, parts.query, parts.fragment)).encode("latin-1")


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, ClientDisconnect):
        # No one reads this answer; the log of a server on a bad link must not fill with tracebacks.
        error = HTTPException(HTTPStatus.BAD_REQUEST, "the connection closed before the body was complete; send it again")
    if isinstance(error, RequestValidationError | HTTPException):
        error = _explained(request, error)
    error = _classified(request, error)
    if isinstance(error, InvalidError):
        detail = [{"loc": list(error.loc), "msg": error.message, "type": error.kind}]
        return JSONResponse({"detail": detail, "code": error.code}, error.status, error.headers)
    if isinstance(error, TunesmithError):
        return JSONResponse({"detail": error.message, "code": error.code}, error.status, error.headers)
    if isinstance(error, RequestValidationError):
        # Only loc, msg and type: pydantic's other keys may hold values of the request that cannot be written as JSON.
        fields = [{"loc": list(e["loc"]), "msg": e["msg"], "type": e["type"]} for e in error.errors()]
        return JSONResponse({"detail": fields, "code": InvalidError.code}, 422)
    if isinstance(error, HTTPException):
        code = _HTTP_CODES.get(error.status_code, "http_error")
        return JSONResponse({"detail": error.detail, "code": code}, error.status_code, error.headers)
    log.error("http.failed", error=repr(error), exc_info=error)
    detail = "an unexpected error; the server's log has it under this request's id"
    return JSONResponse({"detail": detail, "code": TunesmithError.code}, 500)


def _explained(request: Request, error: RequestValidationError | HTTPException) -> Exception:
    is_ours = isinstance(error, HTTPException) and (error.status_code != HTTPStatus.BAD_REQUEST or error.__cause__ is None)
    return error if is_ours else bodies.unreadable(request, error) or error


def _classified(request: Request, error: Exception) -> Exception:
    """Return the error of the taxonomy for a value that cannot be stored and for an outage; other errors unchanged."""
    if isinstance(error, TunesmithError):
        return error
    if is_value(error):
        msg = "a value cannot be stored: text has a NUL character, or a number is too large; correct the request"
        return bodies.unstorable(request) or InvalidError(msg, loc=("request",))
    if is_unavailable(error):
        log.warning("http.unavailable", error=repr(error))
        return UnavailableError("a part of the platform is unavailable; try again", headers={"Retry-After": "2"})
    return error


async def _on_replay(_request: Request, replay: Exception) -> Response:
    assert isinstance(replay, Replay)  # noqa: S101 - registered for nothing else
    return Response(replay.body, replay.status, {REPLAYED_HEADER: "true"}, "application/json")


class _Probe:
    """A check that runs once at a time, however many requests ask for its result.

    A check that hangs is not started a second time: each run would keep a thread or a connection.
    """

    def __init__(self, check: Check) -> None:
        self._check = check
        self._running: asyncio.Task[str] | None = None
        self._began = 0.0

    async def problem(self) -> str:
        """Return what is wrong, or an empty text."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._problem())
            self._began = time.monotonic()
        running = self._running
        await asyncio.wait([running], timeout=_CHECK_TIMEOUT_S)
        return running.result() if running.done() else f"no answer for {time.monotonic() - self._began:.0f} s"

    async def _problem(self) -> str:
        try:
            await self._check()
        except Exception as error:  # noqa: BLE001 - the answer reports every error
            return str(error) or type(error).__name__
        return ""


def _probes(service: str, ready: Mapping[str, Check], live: Mapping[str, Check]) -> APIRouter:
    router = APIRouter()

    async def answer(probes: Mapping[str, _Probe]) -> JSONResponse:
        found = await asyncio.gather(*(probe.problem() for probe in probes.values()))
        problems = {name: problem for name, problem in zip(probes, found, strict=True) if problem}
        status = "ok" if not problems else "failing"
        return JSONResponse({"service": service, "status": status, "problems": problems}, 503 if problems else 200)

    ready_probes = {name: _Probe(check) for name, check in ready.items()}
    live_probes = {name: _Probe(check) for name, check in live.items()}

    @router.get("/health", summary="Whether the process is alive")
    async def health() -> JSONResponse:
        return await answer(live_probes)

    @router.get("/ready", include_in_schema=False)
    async def readiness() -> JSONResponse:
        return await answer(ready_probes)

    @router.get("/metrics", include_in_schema=False)
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


def _check_guarded(router: APIRouter) -> None:
    """Raise TypeError for a route with a key whose body would be read before the key is checked."""
    for route in router.routes:
        if isinstance(route, APIRoute) and not isinstance(route, GuardedRoute) and list(guards(route.dependant)):
            msg = f"{route.path}: give its router route_class=GuardedRoute"
            raise TypeError(msg)


def create_app(
    service: str,
    *,
    lifespan: Lifespan,
    routers: Sequence[APIRouter] = (),
    ready: Mapping[str, Check] | None = None,
    live: Mapping[str, Check] | None = None,
    openapi_url: str | None = "/openapi.json",
) -> FastAPI:
    """Build a process's HTTP application.

    `ready` and `live` map names to async functions that raise when something is wrong; /ready and /health then answer 503 with
    the texts. Dependencies belong into `ready` only: a restart of this process does not make them available.
    """
    app = FastAPI(title=f"Tunesmith {service}", version="1", lifespan=lifespan, openapi_url=openapi_url, docs_url=None)
    app.add_middleware(_OneSlash)
    app.add_middleware(_RelativeRedirects)
    # Set when the process has to stop: event streams end then, or they would keep the process from stopping.
    app.state.stopping = asyncio.Event()
    app.add_middleware(_RequestId)
    app.add_middleware(Lingering)
    # A database's errors, too: further out the request's body is not at hand any more.
    for kind in (TunesmithError, RequestValidationError, HTTPException, DBAPIError):
        app.add_exception_handler(kind, _on_error)
    app.add_exception_handler(Replay, _on_replay)
    app.include_router(_probes(service, ready or {}, live or {}))
    for router in routers:
        _check_guarded(router)
        app.include_router(router)
    openapi.complete(app)
    return app


def run(service: str, create: Callable[[], FastAPI], settings: ProcessSettings) -> None:
    """Serve until SIGTERM or SIGINT; running requests then have 20 seconds to end, before the lifespan ends."""
    configure_logging(service, settings)
    # uvicorn raises the signal again after it has stopped; without a handler the process would end with an error status.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(0))
    app = create()
    server = _Server(
        app,
        uvicorn.Config(
            app,
            host=settings.http_host,
            port=settings.http_port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_GRACE_S,
            server_header=False,
        ),
    )
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(_STARTUP_FAILURE)


class _Server(uvicorn.Server):
    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._app.state.stopping.set()
