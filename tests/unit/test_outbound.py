"""Requests to addresses that users name go to the very addresses that were checked."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import httpx
import pytest

from shared.errors import InvalidError
from shared.http import outbound
from shared.http.outbound import Address

PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "240.0.0.1",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "ff02::1",
    "::ffff:10.0.0.1",
    "2002:7f00:1::",
    "64:ff9b::a00:1",
    "64:ff9b:1::a00:1",
    "fec0::1",
    "feff::1",
    "::10.0.0.1",
    "::8.8.8.8",
    "::ffff:0:8.8.8.8",
    "100::1",
    "2001::1",
    "2001:2::1",
    "2001:10::1",
    "2001:db8::1",
    "2002:a00:1::1",
    "2002:c0a8:101::",
    "2002:c058:6301::",
    "3ffe::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "255.255.255.255",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_of_an_internal_network_is_not_public(address: str) -> None:
    assert not outbound.is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", "2620:fe::fe", "2a00:1450::1"],
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert outbound.is_public(ip_address(address))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://example.com/x", "must start with http"),
        ("https:///x", "must start with http"),
        ("example.com", "must start with http"),
        ("http://user:secret@example.com", "user name"),
        ("http://10.0.0.1/hook", "10.0.0.1 is not a public address"),
        ("http://[::1]:8080/hook", "::1 is not a public address"),
        ("http://example.com:99999/", "not a URL"),
    ],
)
def test_a_wrong_url_is_refused_with_its_field_and_the_reason(url: str, why: str) -> None:
    with pytest.raises(InvalidError, match=f"webhook: .*{why}") as refused:
        outbound.check_url(url, field="webhook", loc=("body", "webhook"))
    assert refused.value.loc == ("body", "webhook")


def test_a_host_name_is_not_resolved_before_the_connection() -> None:
    outbound.check_url("https://localhost/hook", field="webhook")
    outbound.check_url("http://127.0.0.1/hook", field="webhook", allow_private=True)


@asynccontextmanager
async def server() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that redirects every request to itself, and what it was asked."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], asked


async def test_a_name_of_an_internal_address_is_refused() -> None:
    async with server() as (port, asked), outbound.client() as client:
        with pytest.raises(InvalidError, match="localhost has no public address"):
            await client.get(f"http://localhost:{port}/")
    assert asked == []


async def test_a_redirect_is_not_followed() -> None:
    async with server() as (port, asked), outbound.client(allow_private=True) as client:
        answer = await client.get(f"http://localhost:{port}/")
    assert answer.status_code == 302
    assert len(asked) == 1
    assert f"Host: localhost:{port}".encode() in asked[0]


async def test_a_name_is_resolved_once_and_its_checked_address_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [[ip_address("203.0.114.1")], [ip_address("127.0.0.1")]]
    asked: list[str] = []

    async def rebinding(host: str, _port: int) -> list[Address]:
        asked.append(host)
        return answers.pop(0)

    connected: list[str] = []

    async def connect(_self: object, host: str, *_: object) -> None:
        connected.append(host)
        raise httpx.ConnectError("not here")

    monkeypatch.setattr("httpcore.AnyIOBackend.connect_tcp", connect)
    async with outbound.client(resolve=rebinding) as client:
        with pytest.raises(httpx.ConnectError):
            await client.get("http://rebinding.example/")
        with pytest.raises(InvalidError, match=r"rebinding\.example has no public address"):
            await client.get("http://rebinding.example/")
    assert asked == ["rebinding.example"] * 2
    assert connected == ["203.0.114.1"]


async def test_the_next_of_several_addresses_is_tried_when_one_does_not_answer() -> None:
    async def two(_host: str, _port: int) -> list[Address]:
        return [ip_address("127.0.0.2"), ip_address("127.0.0.1")]

    async with server() as (port, _), outbound.client(allow_private=True, resolve=two) as client:
        assert (await client.get(f"http://two.example:{port}/")).status_code == 302
