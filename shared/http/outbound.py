"""HTTP requests to addresses that users name: never into the internal network.

A host name is resolved once, and the connection goes to the addresses that were checked, so that a DNS change after the check
(DNS rebinding) cannot reach the internal network. TLS still verifies the name. Redirects are not followed: a caller that follows
one sends a new request, which is checked like the first.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

from shared.errors import InvalidError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[list[Address]]]

_LOW_32_BITS = 0xFFFFFFFF
_NAT64 = IPv6Network("64:ff9b::/96")
_INTERNET = IPv6Network("2000::/3")
"""The only IPv6 addresses that IANA assigns to hosts of the internet. All others are internal, deprecated or reserved."""
_NOT_PUBLIC: tuple[Network, ...] = (
    # Python 3.11 counts these as global; later versions have most of them. From IANA's special-purpose registries.
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),
    IPv6Network("2001::/23"),
    IPv6Network("2001:db8::/32"),
    IPv6Network("3ffe::/16"),
    IPv6Network("3fff::/20"),
)


def is_public(address: Address) -> bool:
    """Say whether an address is outside of every private, local, reserved and multicast range.

    For an IPv6 address that contains an IPv4 address (mapped, 6to4, NAT64), that one decides: the packets go there.
    """
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = IPv4Address(int(address) & _LOW_32_BITS)
        if inner is not None:
            return is_public(inner)
        if address not in _INTERNET:
            return False
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def check_url(url: str, *, field: str, loc: tuple[str | int, ...] = ("body",), allow_private: bool = False) -> None:
    """Check a URL without a name server: its scheme and host, that it has no user name, and that an IP literal is public.

    Raises InvalidError, which names `field`. A host name is checked when a client connects to it.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        msg = f"{field}: {url!r} is not a URL: {error}"
        raise InvalidError(msg, loc=loc) from error
    if parts.scheme not in {"http", "https"} or not host:
        msg = f"{field}: {url!r} must start with http:// or https:// and name a host"
        raise InvalidError(msg, loc=loc)
    if "@" in parts.netloc:
        msg = f"{field}: the URL has a user name or password; leave it out"
        raise InvalidError(msg, loc=loc)
    try:
        address = ip_address(host)
    except ValueError:
        return
    if not allow_private and not is_public(address):
        msg = f"{field}: {host} is not a public address; name a host on the internet"
        raise InvalidError(msg, loc=loc)


def client(
    *,
    allow_private: bool = False,
    networks: Collection[Network] = (),
    timeout_s: float = 10.0,
    connections: int = 20,
    resolve: Resolve | None = None,
) -> httpx.AsyncClient:
    """Return a client that connects to public addresses only.

    `networks` are internal networks that it may connect to as well; `allow_private` allows them all. `timeout_s` bounds each
    connect, write and read, not the whole request. A request raises InvalidError for an address that is not allowed, and httpx's
    errors otherwise. Proxies in the environment are ignored, because their connections cannot be checked.
    """
    checked = _CheckedConnections(resolve or _resolve, networks, allow_private=allow_private)
    transport = _CheckedTransport(checked, connections)
    return httpx.AsyncClient(
        transport=transport,
        timeout=timeout_s,
        follow_redirects=False,
        trust_env=False,
        # No compression: a small answer must not become a large one.
        headers={"Accept-Encoding": "identity"},
    )


class _CheckedTransport(httpx.AsyncHTTPTransport):
    """httpx's transport with checked connections. Its constructor takes no network backend, but its pool does."""

    def __init__(self, connections: httpcore.AsyncNetworkBackend, limit: int) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=limit,
            max_keepalive_connections=0,
            network_backend=connections,
        )


class _CheckedConnections(httpcore.AsyncNetworkBackend):
    def __init__(self, resolve: Resolve, networks: Collection[Network], *, allow_private: bool) -> None:
        self._resolve = resolve
        self._networks = networks
        self._allow_private = allow_private
        # httpcore declares AnyIOBackend without methods, for environments without anyio.
        self._inner: Any = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._resolve(host, port)
        except TimeoutError as error:
            msg = f"the name {host} could not be resolved in time"
            raise httpcore.ConnectTimeout(msg) from error
        except OSError as error:
            msg = f"the name {host} could not be resolved: {error}"
            raise httpcore.ConnectError(msg) from error
        allowed = [address for address in addresses if self._allows(address)]
        if not allowed:
            msg = f"{host} has no public address, and private ones are not allowed; name a host on the internet"
            raise InvalidError(msg)
        failure: Exception = httpcore.ConnectError(f"the name {host} has no address")
        for address in allowed:
            try:
                return await self._inner.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    def _allows(self, address: Address) -> bool:
        return self._allow_private or is_public(address) or any(address in network for network in self._networks)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _resolve(host: str, port: int) -> list[Address]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # An IPv6 address may end with a zone, which only link-local addresses need.
    return list(dict.fromkeys(ip_address(str(info[4][0]).partition("%")[0]) for info in found))
