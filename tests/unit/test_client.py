"""The client's retries: it repeats a request that the server refuses for a time, and no other."""

from collections.abc import Callable

import httpx
import pytest

from tunesmith.client import Client, TunesmithApiError

TUNES = {"data": [], "has_more": False, "total": 0}
Served = tuple[Client, list[httpx.Request]]


@pytest.fixture
def serve() -> Callable[..., Served]:
    """Return a function that makes a client of a server with these answers, and the list of its requests."""

    def serve(*answers: httpx.Response) -> Served:
        asked: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            asked.append(request)
            return answers[len(asked) - 1]

        client = Client("http://tunesmith.test", "key")
        client._http = httpx.Client(transport=httpx.MockTransport(answer), base_url=client.url)
        return client, asked

    return serve


def refused(status: int, headers: dict[str, str]) -> httpx.Response:
    return httpx.Response(status, json={"detail": "the broker is unavailable", "code": "unavailable"}, headers=headers)


@pytest.mark.parametrize("status", [429, 503])
def test_a_request_that_is_refused_for_a_time_is_retried(serve: Callable[..., Served], status: int) -> None:
    client, asked = serve(refused(status, {"Retry-After": "0"}), httpx.Response(200, json=TUNES))

    assert client.tunes() == []
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("status", "headers"),
    [(503, {}), (503, {"Retry-After": "86400"}), (422, {"Retry-After": "0"})],
    ids=["no time is given", "the time is too long", "a final status"],
)
def test_any_other_refusal_is_raised_at_once(serve: Callable[..., Served], status: int, headers: dict[str, str]) -> None:
    client, asked = serve(refused(status, headers))

    with pytest.raises(TunesmithApiError, match="the broker is unavailable"):
        client.tunes()
    assert len(asked) == 1
