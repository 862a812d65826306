"""The history of images: request them, watch them, keep them.

Written from `asynchronous/generations.py` by `python -m tests.support.synchronous`.
"""

from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any

import httpx

from tunesmith.errors import TunesmithApiError
from tunesmith.generations import Engine, Generation, GenerationProgress, body_of, told
from tunesmith.synchronous import runtime
from tunesmith.synchronous.transport import Transport
from tunesmith.wire import checked

_PATH = "/v1/generations"
_RECONNECT_S = 0.5


class Generations(Transport):
    """The part of the client for the history of images."""

    def create_generations(
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
        return [Generation.model_validate(one) for one in (self._call("POST", _PATH, json=body))["data"]]

    def generation(self, generation_id: str) -> Generation:
        """Return a generation."""
        return Generation.model_validate(self._call("GET", f"{_PATH}/{generation_id}"))

    def iter_generations(self, **filters: Any) -> Iterator[Generation]:
        """Yield the history, newest first, page by page as it is read. The filters are the API's."""
        while True:
            page = self._call("GET", _PATH, params=filters)
            for one in page["data"]:
                yield Generation.model_validate(one)
            if not page["has_more"]:
                return
            filters = {**filters, "before": page["data"][-1]["id"]}

    def watch_generations(self, ids: Sequence[str]) -> Iterator[Generation | GenerationProgress]:
        """Yield the progress of generations as it happens, and each one once it has ended. Reconnects a lost connection."""
        waiting = set(ids)
        while waiting:
            try:
                with self._http.stream("GET", f"{_PATH}/stream", params={"ids": ",".join(sorted(waiting))}) as answer:
                    if answer.status_code == HTTPStatus.NOT_FOUND:
                        # Those that are left were deleted meanwhile.
                        return
                    if answer.is_error:
                        answer.read()
                        checked(answer)
                    event = ""
                    for line in answer.iter_lines():
                        event = line.removeprefix("event: ") if line.startswith("event: ") else event
                        if news := told(event, line):
                            if isinstance(news, Generation):
                                waiting.discard(news.id)
                            yield news
            except httpx.TransportError:
                runtime.sleep(_RECONNECT_S)

    def cancel_generation(self, generation_id: str) -> Generation:
        """Cancel a generation that has not ended, and return it."""
        return Generation.model_validate(self._call("POST", f"{_PATH}/{generation_id}/cancel"))

    def star_generation(self, generation_id: str, *, starred: bool = True) -> Generation:
        """Keep a generation and its images, or let them go, and return it."""
        answer = self._call("PATCH", f"{_PATH}/{generation_id}", json={"starred": starred})
        return Generation.model_validate(answer)

    def delete_generation(self, generation_id: str) -> None:
        """Delete a generation and its images."""
        self._delete(f"{_PATH}/{generation_id}")

    def generation_png(self, generation_id: str, number: int = 0) -> bytes:
        """Return an image as a PNG that names its settings, as AUTOMATIC1111's web UI writes them."""
        answer = self._send("GET", f"{_PATH}/{generation_id}/images/{number}/png")
        if answer.is_error:
            checked(answer)
        if answer.headers.get("Content-Type") != "image/png":
            raise TunesmithApiError(answer.status_code, "not_png", f"{answer.request.url} does not answer with a PNG")
        return answer.content

    def engines(self) -> list[Engine]:
        """Return the engines, with what each takes."""
        return [Engine.model_validate(one) for one in (self._call("GET", "/v1/engines"))["data"]]
