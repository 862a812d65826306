"""A silent store keeps no thread of the process for its readiness, and work goes on when it answers again."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from shared.blobs import clients, store
from shared.blobs.store import Blobs
from shared.errors import UnavailableError
from shared.http import app as web
from shared.settings import ServiceSettings
from tests.support.fault_proxy import FaultProxy


@pytest.fixture
async def proxy(make_settings: Callable[..., ServiceSettings]) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(urlsplit(make_settings().s3_endpoint).port or 80) as proxy:
        yield proxy


@pytest.fixture
async def proxied(blobs: Blobs, proxy: FaultProxy, make_settings: Callable[..., ServiceSettings]) -> AsyncIterator[Blobs]:
    """The store with the test's bucket, behind the proxy."""
    proxied = Blobs.from_settings(make_settings(s3_endpoint=proxy.url(make_settings().s3_endpoint)))
    yield proxied
    await proxy.heal()
    await proxied.close()


@pytest.fixture
async def probes(proxied: Blobs) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(web._probes("sample", {"store": proxied.ping}, {}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sample", timeout=30) as client:
        yield client


async def test_pings_of_a_silent_store_keep_none_of_its_threads(
    proxied: Blobs, proxy: FaultProxy, probes: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_CHECK_TIMEOUT_S", 0.1)
    assert (await probes.get("/ready")).status_code == 200
    proxy.stall()
    for _ in range(3 * clients.THREADS):
        assert (await probes.get("/ready")).status_code == 503
    assert proxy.connections <= 2, "one ping at a time"

    began = time.monotonic()
    proxy.strand()
    await proxied.put_bytes("staging/after", b"x")

    assert time.monotonic() - began < 2, "no thread was held by a ping"


async def test_a_ping_of_a_silent_store_ends_within_its_own_bound(proxied: Blobs, proxy: FaultProxy) -> None:
    proxy.stall()

    began = time.monotonic()
    with pytest.raises(UnavailableError):
        await proxied.ping()

    assert time.monotonic() - began < clients.CONNECT_S + store._PING_READ_S + 1


@pytest.mark.parametrize("fault", ["slow", "cut", "down"])
async def test_the_store_is_used_through_a_fault_and_after_it(proxied: Blobs, proxy: FaultProxy, fault: str) -> None:
    await proxied.put_bytes("staging/one", b"one")
    match fault:
        case "slow":
            proxy.slow(0.2)
        case "cut":
            proxy.cut()
        case _:
            await proxy.down()
            with pytest.raises(UnavailableError):
                await proxied.put_bytes("staging/two", b"two")
            await proxy.heal()

    async with asyncio.timeout(20):
        await proxied.put_bytes("staging/two", b"two")
        assert await proxied.get_bytes("staging/one", max_bytes=10) == b"one"
