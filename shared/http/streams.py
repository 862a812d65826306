"""Room for streams of server-sent events: one process holds so many open, and accounts share them fairly."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from uuid import UUID

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from shared.errors import LimitError
from shared.shares import Shares

MEDIA_TYPE = "text/event-stream"
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_RETRY = {"Retry-After": "5"}


class StreamRoom:
    """So many streams at the same time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._shares = Shares(most)

    @property
    def open(self) -> int:
        """How many streams are open."""
        return self._shares.held

    def of(self, account_id: UUID) -> AbstractContextManager[None]:
        """Return a context that holds room for one stream. Raises LimitError where the account's share is used up."""
        if self.open >= self._most:
            msg = f"this server holds {self.open} event streams open, its limit; poll instead, or retry in 5 seconds"
            raise LimitError(msg, headers=_RETRY)
        held = self._shares.held_by(account_id)
        msg = f"the account has {held} of this server's {self._most} event streams, its share; close some, or poll instead"
        return self._shares.slot_now(account_id, msg)


class EventStream(StreamingResponse):
    """A stream that takes its room when it is sent, and gives it back however that ends: no disconnect can keep it."""

    def __init__(self, frames: AsyncIterator[bytes], room: Callable[[], AbstractContextManager[None]]) -> None:
        super().__init__(frames, media_type=MEDIA_TYPE, headers=_HEADERS)
        self._room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream. Raises what the room raises."""
        with self._room():
            await super().__call__(scope, receive, send)
