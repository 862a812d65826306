"""Limits the bytes of a request's body before anything parses it."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from shared.errors import TooLargeError


def bounded_route(max_bytes: int) -> type[APIRoute]:
    """Return a route class that answers 413 to a larger body, whether or not the request announces its length."""

    class BoundedRequest(Request):
        async def body(self) -> bytes:
            if not hasattr(self, "_body"):
                announced = self.headers.get("content-length", "")
                if announced.isdigit() and int(announced) > max_bytes:
                    raise _too_large(max_bytes)
                parts: list[bytes] = []
                async for part in self.stream():
                    parts.append(part)
                    if sum(map(len, parts)) > max_bytes:
                        raise _too_large(max_bytes)
                self._body = b"".join(parts)
            return self._body

    class BoundedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def bounded(request: Request) -> Response:
                bounded_request = BoundedRequest(request.scope, request.receive)
                # Read the body here: an error that is raised while FastAPI reads it becomes an error about bad JSON.
                await bounded_request.body()
                return await handle(bounded_request)

            return bounded

    return BoundedRoute


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"the body is larger than {max_bytes} bytes; send smaller or fewer images")
