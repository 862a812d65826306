"""Routes that check the key of a request before they read its body, and limit the body's size and the time that it takes."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from shared.errors import TooLargeError, TooSlowError
from shared.http import bodies
from shared.http.auth import Guard

JSON_BYTES = 4 * 2**20
"""The largest body of a request without images."""
_WAIT_S = 30.0
_BYTES_PER_S = 16 * 1024
"""A body may take the wait, and the time that it needs at this rate: slow links keep up, and a trickle ends."""


class _BoundedRequest(Request):
    """A request whose body has at most this many bytes, whether or not it announces its length, and arrives in time."""

    max_bytes: int

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            announced = self.headers.get("content-length", "")
            if announced.isdecimal() and announced.isascii() and _number(announced) > self.max_bytes:
                raise self._too_large()
            self._body = await self._received()
        return self._body

    async def _received(self) -> bytes:
        body = bytearray()
        latest = asyncio.get_running_loop().time() + _WAIT_S
        try:
            async with asyncio.timeout_at(latest) as limit:
                async for part in self.stream():
                    body += part
                    if len(body) > self.max_bytes:
                        raise self._too_large()
                    limit.reschedule(latest + len(body) / _BYTES_PER_S)
        except TimeoutError:
            msg = (
                f"of the body, {len(body)} bytes arrived in time; a body may take {_WAIT_S:g} s and 1 s for each "
                f"{_BYTES_PER_S} bytes; send it faster, or send less"
            )
            raise TooSlowError(msg) from None
        return bytes(body)

    async def json(self) -> Any:
        parsed = await super().json()
        self.scope[bodies.PARSED] = parsed
        return parsed

    def _too_large(self) -> TooLargeError:
        return TooLargeError(f"the body is larger than {self.max_bytes} bytes, the limit of this path; send a smaller one")


def _number(digits: str) -> int:
    # int() takes quadratic time in the number of digits, and refuses very many of them with another error.
    return int(digits[:20])


class GuardedRoute(APIRoute):
    """FastAPI reads and parses a body before it calls the first dependency, so a stranger could make it parse anything.

    This route first authenticates the request, then reads its body within the limit, and then calls FastAPI's handler.
    """

    max_bytes = JSON_BYTES

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of the route."""
        handle = super().get_route_handler()
        found = list(guards(self.dependant))

        async def guarded(request: Request) -> Response:
            bounded = _BoundedRequest(request.scope, request.receive)
            bounded.max_bytes = self.max_bytes
            for guard in found:
                await guard.admit(bounded)
            # Read the body here: an error that is raised while FastAPI reads it becomes an error about bad JSON.
            await bounded.body()
            return await handle(bounded)

        return guarded


def guarded_route(max_bytes: int) -> type[GuardedRoute]:
    """Return a route class whose bodies have at most this many bytes."""

    class Route(GuardedRoute):
        pass

    Route.max_bytes = max_bytes
    return Route


def guards(dependant: Dependant) -> Iterator[Guard]:
    """Yield the guards among a route's dependencies."""
    if isinstance(dependant.call, Guard):
        yield dependant.call
    for inner in dependant.dependencies:
        yield from guards(inner)
