"""Fetches files from addresses that users name: from hosts of an allow-list alone, bounded in size and time.

`shared/http/outbound.py` sees to it that a name of the list does not lead into our own network. Redirects are followed here, each
checked as the first address was.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Self

import httpx

from services.upload.settings import UploadSettings
from shared.errors import InvalidError, UnavailableError
from shared.http import outbound

_MAX_REDIRECTS = 5
_PORTS = {"https": 443, "http": 80}
_WANTS_TOKEN = {401, 403}
_LATER = {408, 425, 429}


@dataclass(frozen=True)
class HostRule:
    """An entry of the allow-list: `host` or `*.domain`, with HTTPS on its usual port unless it says otherwise."""

    scheme: str
    pattern: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an entry. Raises ValueError, which should end the start."""
        scheme, _, rest = text.strip().lower().rpartition("://")
        scheme = scheme or "https"
        host, _, port = rest.partition(":")
        if scheme not in _PORTS or not host or (port and not port.isdecimal()):
            msg = f"TUNESMITH_IMPORT_HOSTS: {text!r} is not host, *.domain, host:port or http://host:port"
            raise ValueError(msg)
        return cls(scheme, host, int(port) if port else _PORTS[scheme])

    def matches(self, url: httpx.URL) -> bool:
        """Say whether the rule allows this address."""
        host = url.raw_host.decode("ascii").lower().rstrip(".")
        port = url.port or _PORTS.get(url.scheme)
        return url.scheme == self.scheme and port == self.port and fnmatchcase(host, self.pattern)


class Fetcher:
    """Fetches files. Every method raises InvalidError for what will not change, UnavailableError for what may."""

    def __init__(self, settings: UploadSettings, *, resolve: outbound.Resolve | None = None) -> None:
        self._rules = [HostRule.parse(text) for text in settings.import_hosts.split(",") if text.strip()]
        networks = [ip_network(text.strip()) for text in settings.import_private_networks.split(",") if text.strip()]
        self._client = outbound.client(timeout_s=settings.import_stall_s, networks=networks, resolve=resolve)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def check(self, url: str, *, field: str, loc: tuple[str | int, ...] = ("body",)) -> None:
        """Check that an address may be fetched from. Raises InvalidError, which names `field`."""
        # Addresses in figures are in the list or not, as names are; where they lead is checked when they are connected to.
        outbound.check_url(url, field=field, loc=loc, allow_private=True)
        parsed = httpx.URL(url)
        if not any(rule.matches(parsed) for rule in self._rules):
            allowed = ", ".join(dict.fromkeys(rule.pattern for rule in self._rules))
            place = f"{parsed.scheme}://{parsed.netloc.decode()}"
            msg = f"{field}: this server fetches nothing from {place}; it fetches over https from {allowed}"
            raise InvalidError(msg, loc=loc)

    async def fetch(self, url: str, path: Path, *, max_bytes: int, token: str | None = None) -> int:
        """Fetch a file to `path` and return its size in bytes; the token goes to the first address's origin only."""
        async with _translated(), self._open(url, token) as answer:
            _check_kind(answer)
            announced = answer.headers.get("Content-Length", "0")
            size = int(announced) if announced.isdecimal() else 0
            if size > max_bytes:
                raise _too_large(size, max_bytes)
            size = 0
            with path.open("wb") as file:
                async for chunk in answer.aiter_raw(1 << 20):
                    size += len(chunk)
                    if size > max_bytes:
                        raise _too_large(size, max_bytes)
                    await asyncio.to_thread(file.write, chunk)
            return size

    async def read_json(self, url: str, *, max_bytes: int, token: str | None = None) -> Any:
        """Fetch a JSON document."""
        body = b""
        async with _translated(), self._open(url, token) as answer:
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > max_bytes:
                    raise _too_large(len(body), max_bytes)
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            msg = f"{httpx.URL(url).host} did not answer JSON"
            raise InvalidError(msg) from error

    @asynccontextmanager
    async def _open(self, url: str, token: str | None) -> AsyncGenerator[httpx.Response]:
        origin = _origin(httpx.URL(url))
        for _ in range(_MAX_REDIRECTS + 1):
            self.check(url, field="url")
            secret = {"Authorization": f"Bearer {token}"} if token and _origin(httpx.URL(url)) == origin else {}
            async with self._client.stream("GET", url, headers=secret) as answer:
                if not answer.has_redirect_location:
                    _check_status(answer)
                    yield answer
                    return
                url = _target(answer)
        msg = f"there are more than {_MAX_REDIRECTS} redirects"
        raise InvalidError(msg)


@asynccontextmanager
async def _translated() -> AsyncGenerator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        # Its text names hosts and reasons, never headers.
        msg = f"the host does not answer as it should: {type(error).__name__} {error}".strip()
        raise UnavailableError(msg) from error


def _target(answer: httpx.Response) -> str:
    try:
        return str(answer.url.join(answer.headers["Location"]))
    except httpx.InvalidURL as error:
        msg = f"{answer.url.host} redirects to what is no address"
        raise InvalidError(msg) from error


def _check_status(answer: httpx.Response) -> None:
    status, host = answer.status_code, answer.url.host
    if status == httpx.codes.OK:
        return
    if status in _LATER or answer.is_server_error:
        msg = f"{host} answers {status} just now"
        raise UnavailableError(msg)
    hint = "; the file may be private or gated: hf_token_secret may open it" if status in _WANTS_TOKEN else ""
    msg = f"{host} answers {status}{hint}"
    raise InvalidError(msg)


def _check_kind(answer: httpx.Response) -> None:
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in {"text/html", "application/xhtml+xml"}:
        msg = f"{answer.url.host} answers a web page, not a file: give the address of the file itself"
        raise InvalidError(msg)
    if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
        msg = f"{answer.url.host} answers the file compressed, though asked not to"
        raise InvalidError(msg)


def _origin(url: httpx.URL) -> tuple[str, bytes, int | None]:
    return url.scheme, url.raw_host, url.port


def _too_large(size_bytes: int, max_bytes: int) -> InvalidError:
    return InvalidError(f"the file has {size_bytes} bytes or more; at most {max_bytes} are allowed")
