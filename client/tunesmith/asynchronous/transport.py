"""Sends requests, and retries those that are refused for a time or whose answer is lost."""

from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx

from tunesmith import asset_files, connection
from tunesmith.asynchronous import runtime
from tunesmith.errors import TunesmithApiError
from tunesmith.models import TuneEvent
from tunesmith.retries import Retries
from tunesmith.wire import LAST_EVENTS, checked, event_of

_POLL_S = 0.5


class AsyncTransport:
    """The connections to one server.

    `timeout_s` is how long an answer may take, and `patience_s` how long a request is retried.
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, *, timeout_s: float = 300.0, patience_s: float = 20.0
    ) -> None:
        self.url, token = connection.resolve(url, token)
        self._patience_s = patience_s
        self._http = httpx.AsyncClient(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=timeout_s)
        # Presigned URLs carry their own signature. The store must not see the API key.
        self._plain = httpx.AsyncClient(timeout=timeout_s)

    async def __aenter__(self) -> Self:
        """Return the client. At the end of the `with` block its connections are closed."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the connections."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()
        await self._plain.aclose()

    async def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return checked(await self._send(method, path, **options))

    async def _send(self, method: str, path: str, *, is_repeatable: bool = True, **options: Any) -> httpx.Response:
        """Send a request and return its answer, an error included.

        A POST has an `Idempotency-Key`, so that a retry of one that was handled gets the same answer. A request that is not
        repeatable is not retried when its answer is lost.
        """
        headers: dict[str, str] = {**options.pop("headers", {})}
        if method == "POST":
            headers.setdefault("Idempotency-Key", str(uuid4()))
        retries = Retries(self._patience_s)
        while True:
            try:
                answer = await self._http.request(method, path, headers=headers, **options)
            except httpx.TransportError as error:
                pause_s = retries.pause_s(error)
                if pause_s is None or not (is_repeatable or not retries.were_answers_lost):
                    raise
            else:
                pause_s = retries.pause_s(answer)
                if method == "DELETE" and answer.status_code == HTTPStatus.NOT_FOUND and retries.were_answers_lost:
                    # The lost answer was that of the deletion.
                    return httpx.Response(HTTPStatus.NO_CONTENT, request=answer.request)
                if pause_s is None:
                    return answer
            await runtime.sleep(pause_s)

    async def _delete(self, path: str) -> None:
        answer = await self._send("DELETE", path)
        if answer.status_code != HTTPStatus.NO_CONTENT:
            checked(answer)

    async def _pages(self, path: str, filters: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        offset = 0
        while True:
            page = await self._call("GET", path, params={**filters, "offset": offset})
            for item in page["data"]:
                yield item
            offset += len(page["data"])
            if not page["has_more"]:
                return

    async def _numbered(self, path: str, after: int) -> AsyncIterator[dict[str, Any]]:
        """Yield all entries of a list whose pages continue after a sequence number."""
        while True:
            page = await self._call("GET", path, params={"after": after})
            for item in page["data"]:
                yield item
            if not page["has_more"]:
                return
            after = page["data"][-1]["sequence"]

    async def _stream(self, path: str, after: int) -> AsyncIterator[TuneEvent]:
        """Yield events as they happen, up to the last of a tune. Reconnects when the connection is lost."""
        has_ended = False
        while not has_ended:
            try:
                async with self._http.stream("GET", path, headers={"Last-Event-ID": str(after)}) as answer:
                    if answer.is_error:
                        await answer.aread()
                        checked(answer)
                    has_ended = answer.status_code == HTTPStatus.NO_CONTENT
                    async for line in answer.aiter_lines():
                        if event := event_of(line):
                            after = event["sequence"]
                            has_ended = event["type"] in LAST_EVENTS
                            yield event
            except httpx.TransportError:
                await runtime.sleep(_POLL_S)

    async def _put(self, url: str, path: Path, on_bytes: Callable[[int], object] | None = None) -> None:
        """Send a file to the store. Sends it again from its start when the connection is lost."""
        # Without its length a body is sent in chunks, which presigned uploads do not allow.
        headers = {"Content-Length": str(asset_files.size(path))}
        retries = Retries(self._patience_s)
        while True:
            try:
                put = await self._plain.put(url, content=runtime.chunks_of(path, on_bytes), headers=headers)
            except httpx.TransportError as error:
                if (pause_s := retries.pause_s(error)) is None:
                    raise
            else:
                if not put.is_error:
                    return
                if (pause_s := retries.pause_s(put)) is None:
                    msg = f"the store refused the upload: {put.text[:300]}"
                    raise TunesmithApiError(put.status_code, "upload_failed", msg)
            await runtime.sleep(pause_s)

    async def _fetch(self, url: str, part: Path, on_bytes: Callable[[int], object] | None = None) -> None:
        """Download into a file. Continues where the file ends, also after a lost connection."""
        retries, had = Retries(self._patience_s), 0
        while True:
            if (have := asset_files.size(part)) > had:
                # It makes progress, however often it is cut.
                retries, had = Retries(self._patience_s), have
            headers = {"Range": f"bytes={have}-"} if have else {}
            try:
                async with self._plain.stream("GET", url, headers=headers) as answer:
                    if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                        return
                    if not answer.is_error:
                        await self._append(answer, part, on_bytes)
                        return
                    await answer.aread()
                    if (pause_s := retries.pause_s(answer)) is None:
                        msg = f"the store refused the download: {answer.text[:300]}"
                        raise TunesmithApiError(answer.status_code, "download_failed", msg)
            except httpx.TransportError as error:
                if (pause_s := retries.pause_s(error)) is None:
                    raise
            await runtime.sleep(pause_s)

    @staticmethod
    async def _append(answer: httpx.Response, part: Path, on_bytes: Callable[[int], object] | None) -> None:
        # A store that ignores the range sends the whole file.
        mode = "ab" if answer.status_code == HTTPStatus.PARTIAL_CONTENT else "wb"
        with part.open(mode) as file:
            async for chunk in answer.aiter_bytes():
                file.write(chunk)
                if on_bytes:
                    on_bytes(file.tell())
