"""The history of images: request them, watch them, keep them."""

from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Any

import httpx

from tunesmith.asynchronous import runtime
from tunesmith.asynchronous.transport import AsyncTransport
from tunesmith.errors import TunesmithApiError
from tunesmith.generations import Engine, Generation, GenerationProgress, body_of, told
from tunesmith.wire import checked

_PATH = "/v1/generations"
_RECONNECT_S = 0.5


class AsyncGenerations(AsyncTransport):
    """The part of the client for the history of images."""

    async def create_generations(
        self,
        prompt: str,
        *,
        engine: str = "sd",
        variants: Sequence[dict[str, Any]] | None = None,
        group: dict[str, Any] | None = None,
        **options: Any,
    ) -> list[Generation]:
        """Request images, or variants of them, without waiting. A variant changes some fields; `options` are the API's."""
        body = body_of(prompt, engine, variants, group, options)
        return [Generation.model_validate(one) for one in (await self._call("POST", _PATH, json=body))["data"]]

    async def generation(self, generation_id: str) -> Generation:
        """Return a generation."""
        return Generation.model_validate(await self._call("GET", f"{_PATH}/{generation_id}"))

    async def iter_generations(self, **filters: Any) -> AsyncIterator[Generation]:
        """Yield the history, newest first, page by page as it is read. The filters are the API's."""
        while True:
            page = await self._call("GET", _PATH, params=filters)
            for one in page["data"]:
                yield Generation.model_validate(one)
            if not page["has_more"]:
                return
            filters = {**filters, "before": page["data"][-1]["id"]}

    async def watch_generations(self, ids: Sequence[str]) -> AsyncIterator[Generation | GenerationProgress]:
        """Yield the progress of generations as it happens, and each one once it has ended. Reconnects a lost connection."""
        waiting = set(ids)
        while waiting:
            try:
                async with self._http.stream("GET", f"{_PATH}/stream", params={"ids": ",".join(sorted(waiting))}) as answer:
                    if answer.status_code == HTTPStatus.NOT_FOUND:
                        # Those that are left were deleted meanwhile.
                        return
                    if answer.is_error:
                        await answer.aread()
                        checked(answer)
                    event = ""
                    async for line in answer.aiter_lines():
                        event = line.removeprefix("event: ") if line.startswith("event: ") else event
                        if news := told(event, line):
                            if isinstance(news, Generation):
                                waiting.discard(news.id)
                            yield news
            except httpx.TransportError:
                await runtime.sleep(_RECONNECT_S)

    async def cancel_generation(self, generation_id: str) -> Generation:
        """Cancel a generation that has not ended, and return it."""
        return Generation.model_validate(await self._call("POST", f"{_PATH}/{generation_id}/cancel"))

    async def star_generation(self, generation_id: str, *, starred: bool = True) -> Generation:
        """Keep a generation and its images, or let them go, and return it."""
        answer = await self._call("PATCH", f"{_PATH}/{generation_id}", json={"starred": starred})
        return Generation.model_validate(answer)

    async def delete_generation(self, generation_id: str) -> None:
        """Delete a generation and its images."""
        await self._delete(f"{_PATH}/{generation_id}")

    async def generation_png(self, generation_id: str, number: int = 0) -> bytes:
        """Return an image as a PNG that names its settings, as AUTOMATIC1111's web UI writes them."""
        answer = await self._send("GET", f"{_PATH}/{generation_id}/images/{number}/png")
        if answer.is_error:
            checked(answer)
        if answer.headers.get("Content-Type") != "image/png":
            raise TunesmithApiError(answer.status_code, "not_png", f"{answer.request.url} does not answer with a PNG")
        return answer.content

    async def engines(self) -> list[Engine]:
        """Return the engines, with what each takes."""
        return [Engine.model_validate(one) for one in (await self._call("GET", "/v1/engines"))["data"]]
