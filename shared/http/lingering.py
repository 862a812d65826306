"""Lets a client read the answer to a request whose body was not read to its end."""

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LONGEST_S = 1.0
"""Most clients stop sending as soon as they have an answer."""


class Lingering:
    """Reads and discards the rest of such a body for a second before the connection is closed.

    A connection that is closed with unread bytes is reset, and a reset discards the answer that the client has not read yet.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        is_read = False

        async def receive_part() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = is_read or not message.get("more_body", False)
            return message

        async def send_part(message: Message) -> None:
            if is_read or message["type"] != "http.response.body" or message.get("more_body", False):
                await send(message)
                return
            await send({**message, "more_body": True})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LONGEST_S):
                    while not is_read:
                        await receive_part()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self._app(scope, receive_part, send_part)


def _has_body(scope: Scope) -> bool:
    """Say whether a body is on its way. A client that waits for `100 Continue` has not begun to send one."""
    headers = dict(scope["headers"])
    return b"expect" not in headers and (b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0")
