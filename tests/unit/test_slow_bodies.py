"""A body that arrives too slowly ends in a 408, on real connections; one that arrives steadily is read whole."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from fastapi import APIRouter, FastAPI
from structlog.testing import capture_logs

from shared.http import app as web
from shared.http import routes
from shared.http.routes import GuardedRoute

WAIT_S = 0.4
BYTES_PER_S = 1000
_HEAD = b"POST /count HTTP/1.1\r\nHost: sample\r\nContent-Type: application/json\r\n"


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield


@pytest.fixture
async def port(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    monkeypatch.setattr(routes, "_WAIT_S", WAIT_S)
    monkeypatch.setattr(routes, "_BYTES_PER_S", BYTES_PER_S)
    router = APIRouter(route_class=GuardedRoute)

    @router.post("/count")
    async def count(body: dict[str, Any]) -> int:
        return len(body["text"])

    app = web.create_app("sample", lifespan=_lifespan, routers=[router])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


async def _send(port: int, body: bytes, *, part: int, pause_s: float, head: bytes | None = None) -> tuple[bytes, float]:
    """Send a body in parts until the server closes or answers; return all that it answered, and the seconds until then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = asyncio.get_running_loop().time()

    async def send() -> None:
        writer.write(head or _HEAD + b"Content-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), part):
            writer.write(body[start : start + part])
            await writer.drain()
            await asyncio.sleep(pause_s)

    sending = asyncio.create_task(send())
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    took_s = asyncio.get_running_loop().time() - began
    sending.cancel()
    # The rest until the server closes the connection, which a 408 must do.
    if b" 408 " in answer:
        answer += await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer, took_s


@pytest.mark.parametrize(
    "head", [None, _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"], ids=["with its length", "without its length"]
)
async def test_a_trickle_ends_in_a_408_that_says_why_and_closes_the_connection(port: int, head: bytes | None) -> None:
    body = json.dumps({"text": "x" * 5000}).encode() if head is None else b"1\r\nx\r\n" * 1000

    answer, took_s = await _send(port, body, part=6, pause_s=0.05, head=head)

    assert b" 408 " in answer
    assert b"connection: close" in answer.lower()
    reason = json.loads(answer.rpartition(b"\r\n\r\n")[2])
    assert reason["code"] == "too_slow"
    assert "arrived in time; a body may take 0.4 s and 1 s for each 1000 bytes" in reason["detail"]
    assert WAIT_S <= took_s < WAIT_S + 5


async def test_a_body_that_never_begins_ends_in_a_408(port: int) -> None:
    answer, _ = await _send(port, b"", part=1, pause_s=0, head=_HEAD + b"Content-Length: 10\r\n\r\n")

    assert b" 408 " in answer
    assert b"of the body, 0 bytes arrived in time" in answer


async def test_a_slow_but_steady_body_is_read_whole(port: int) -> None:
    """It takes three times as long as a body without any bytes may."""
    body = json.dumps({"text": "x" * 6000}).encode()

    answer, took_s = await _send(port, body, part=500, pause_s=0.1)

    assert b" 200 " in answer
    assert took_s > 2 * WAIT_S


async def test_a_client_that_leaves_amid_its_body_is_no_error_of_the_server(port: int) -> None:
    with capture_logs() as logs:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_HEAD + b"Content-Length: 100\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.close()
        await asyncio.sleep(0.2)

    assert [line["event"] for line in logs] == []


async def test_a_client_that_is_still_sending_gets_the_whole_answer(port: int) -> None:
    """The answer comes before the body is read, and the connection is not reset while bytes of it are on their way."""
    body = b" " * (6 * 2**20)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    writer.write(_HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    await asyncio.wait_for(writer.drain(), 20)
    answer = await asyncio.wait_for(reader.read(), 20)

    assert b" 413 " in answer
    assert json.loads(answer.rpartition(b"\r\n\r\n")[2])["code"] == "too_large"
    writer.close()
