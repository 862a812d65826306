"""Decides whether a request is sent again, and when."""

import random
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpx

_FOR_A_TIME = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
"""A 500 is not here: the same request would fail in the same way."""
_LOST = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_MOST_CONNECTS = 4
"""A refused connection is usually a wrong address, so it is not tried for as long as a server that is unavailable."""


class Retries:
    """The retries of one request, for at most `patience_s` seconds after its first failure.

    `were_answers_lost` says whether the server may have handled it, although no answer came.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._deadline: float | None = None
        self._tries = 0
        self.were_answers_lost = False

    def pause_s(self, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Return the seconds to wait before the next try, or None when this outcome is the last.

        The server's `Retry-After` is obeyed. Without one, the pause doubles from try to try. Its length is random, so that many
        clients do not return at the same moment.
        """
        self._tries += 1
        if self._deadline is None:
            # A large file may have been on its way for minutes by now.
            self._deadline = time.monotonic() + self._patience_s
        if isinstance(outcome, httpx.Response):
            if outcome.status_code not in _FOR_A_TIME:
                return None
            asked_s = _retry_after_s(outcome.headers.get("Retry-After", ""))
        else:
            is_connect = isinstance(outcome, httpx.ConnectError | httpx.ConnectTimeout)
            if not isinstance(outcome, _LOST) or (is_connect and self._tries >= _MOST_CONNECTS):
                return None
            self.were_answers_lost |= not is_connect
            asked_s = None
        if asked_s is None:
            asked_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** (self._tries - 1)) * random.uniform(0.5, 1)
        return asked_s if time.monotonic() + asked_s <= self._deadline else None


def _retry_after_s(value: str) -> float | None:
    """Return the seconds that a `Retry-After` names, as a number or as a date; None when there is none."""
    if value.isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at.astimezone(UTC) - datetime.now(UTC)).total_seconds())
