"""Fetches files from addresses that users name: from hosts of an allow-list alone, bounded in size and time.

`shared/http/outbound.py` sees to it that a name of the list does not lead into our own network. Redirects are followed here, each
checked as the first address was.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http import HTTPStatus
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx

from services.upload.settings import UploadSettings
from services.upload.sources import AllowedHosts
from shared.errors import InvalidError, UnavailableError
from shared.http import outbound

_MAX_REDIRECTS = 5
_WANTS_TOKEN = {401, 403}
_LATER = {408, 425, 429}


class Fetcher:
    """Fetches files. Every method raises InvalidError for what will not change, UnavailableError for what may."""

    def __init__(self, settings: UploadSettings, *, resolve: outbound.Resolve | None = None) -> None:
        self._hosts = AllowedHosts(settings)
        networks = [ip_network(text.strip()) for text in settings.import_private_networks.split(",") if text.strip()]
        self._client = outbound.client(timeout_s=settings.import_stall_s, networks=networks, resolve=resolve)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

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
            self._hosts.check(url)
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
    if status == HTTPStatus.OK:
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
