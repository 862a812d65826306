"""The client repeats a request that the server refuses for a time, and no other; what is wrong with its settings is named."""

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
    [(503, {"Retry-After": "86400"}), (422, {"Retry-After": "0"}), (500, {})],
    ids=["the time is too long", "a final status", "a mistake of the server"],
)
def test_any_other_refusal_is_raised_at_once(serve: Callable[..., Served], status: int, headers: dict[str, str]) -> None:
    client, asked = serve(refused(status, headers))

    with pytest.raises(TunesmithApiError, match="the broker is unavailable"):
        client.tunes()
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            httpx.Response(308, headers={"Location": "https://tunesmith.test/v1/tunes"}),
            "http://tunesmith.test/v1/tunes.* redirects to https://tunesmith.test/v1/tunes: set TUNESMITH_URL",
        ),
        (httpx.Response(200, html="<html>sign in</html>"), "answers text/html; charset=utf-8 where JSON is expected: check"),
        (httpx.Response(200, content=b""), "answers no content type where JSON is expected"),
    ],
    ids=["TLS", "a page", "nothing"],
)
def test_an_answer_of_another_server_is_named(serve: Callable[..., Served], answer: httpx.Response, says: str) -> None:
    client, _ = serve(answer)

    with pytest.raises(TunesmithApiError, match=says):
        client.tunes()


@pytest.mark.parametrize(
    ("url", "token", "says"),
    [
        ("http://host:port", "key", "TUNESMITH_URL is 'http://host:port', which is no address"),
        ("http://tunesmith.test", "k\u00e9y", "OCTOAI_TOKEN has characters that no API key has"),
        ("http://tunesmith.test", "k\ney", "OCTOAI_TOKEN has characters that no API key has"),
    ],
)
def test_a_wrong_setting_is_named(url: str, token: str, says: str) -> None:
    with pytest.raises(TunesmithApiError, match=says):
        Client(url, token)


def test_blanks_around_the_settings_are_left_out() -> None:
    client = Client(" http://tunesmith.test/ \n", "key\n")

    assert (client.url, client._http.headers["Authorization"]) == ("http://tunesmith.test", "Bearer key")
