"""Fetches files from URLs that users give: only from allowed hosts, and bounded in size and time.

`shared/http/outbound.py` keeps the name of an allowed host from leading into the internal network. Redirects are followed
here, and each target is checked as the first URL was.
"""

import asyncio
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
from shared.formats import strict_json
from shared.http import outbound

_MAX_REDIRECTS = 5
_NEEDS_TOKEN = {401, 403}
_TEMPORARY = {408, 425, 429}


class Fetcher:
    """Fetches files. Every method raises UnavailableError where a retry may help, and InvalidError where it cannot."""

    def __init__(self, settings: UploadSettings, *, resolve: outbound.Resolve | None = None) -> None:
        self._hosts = AllowedHosts(settings)
        networks = [ip_network(text.strip()) for text in settings.import_private_networks.split(",") if text.strip()]
        self._client = outbound.client(timeout_s=settings.import_stall_s, networks=networks, resolve=resolve)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def fetch(self, url: str, path: Path, *, max_bytes: int, token: str | None = None) -> int:
        """Fetch a file to `path` and return its size in bytes. The token is sent only to the origin of `url`."""
        async with _translated(), self._open(url, token) as response:
            _check_kind(response)
            announced = response.headers.get("Content-Length", "0")
            size = int(announced) if announced.isdecimal() else 0
            if size > max_bytes:
                raise _too_large(size, max_bytes)
            size = 0
            with path.open("wb") as file:
                async for chunk in response.aiter_raw(1 << 20):
                    size += len(chunk)
                    if size > max_bytes:
                        raise _too_large(size, max_bytes)
                    await asyncio.to_thread(file.write, chunk)
            return size

    async def read_json(self, url: str, *, max_bytes: int, token: str | None = None) -> Any:
        """Fetch a JSON document."""
        body = b""
        async with _translated(), self._open(url, token) as response:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > max_bytes:
                    raise _too_large(len(body), max_bytes)
        return await asyncio.to_thread(strict_json.loads, body, f"what {httpx.URL(url).host} sends")

    @asynccontextmanager
    async def _open(self, url: str, token: str | None) -> AsyncGenerator[httpx.Response]:
        origin = _origin(httpx.URL(url))
        for _ in range(_MAX_REDIRECTS + 1):
            self._hosts.check(url)
            secret = {"Authorization": f"Bearer {token}"} if token and _origin(httpx.URL(url)) == origin else {}
            async with self._client.stream("GET", url, headers=secret) as response:
                if not response.has_redirect_location:
                    _check_status(response)
                    yield response
                    return
                url = _target(response)
        msg = f"more than {_MAX_REDIRECTS} redirects; give the URL of the file itself"
        raise InvalidError(msg)


@asynccontextmanager
async def _translated() -> AsyncGenerator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        # The text of the error names hosts and reasons, and never headers, which hold the token.
        msg = f"the request to the host failed: {type(error).__name__} {error}".strip()
        raise UnavailableError(msg) from error


def _target(response: httpx.Response) -> str:
    try:
        return str(response.url.join(response.headers["Location"]))
    except httpx.InvalidURL as error:
        msg = f"{response.url.host} redirects to something that is not a URL"
        raise InvalidError(msg) from error


def _check_status(response: httpx.Response) -> None:
    status, host = response.status_code, response.url.host
    if status == HTTPStatus.OK:
        return
    if status in _TEMPORARY or response.is_server_error:
        msg = f"{host} is unavailable: it answers {status}"
        raise UnavailableError(msg)
    hint = "; if its repository is private or gated, give a token as hf_token_secret" if status in _NEEDS_TOKEN else ""
    msg = f"{host} answers {status}{hint}"
    raise InvalidError(msg)


def _check_kind(response: httpx.Response) -> None:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in {"text/html", "application/xhtml+xml"}:
        msg = f"{response.url.host} sends a web page, not a file; give the URL of the file itself"
        raise InvalidError(msg)
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        msg = f"{response.url.host} sends the file compressed, which is not supported; give a URL that sends it as it is"
        raise InvalidError(msg)


def _origin(url: httpx.URL) -> tuple[str, bytes, int | None]:
    return url.scheme, url.raw_host, url.port


def _too_large(size_bytes: int, max_bytes: int) -> InvalidError:
    return InvalidError(f"the file has {size_bytes} bytes or more; at most {max_bytes} are allowed")
