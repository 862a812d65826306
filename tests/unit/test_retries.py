"""A request is sent again while the server is unavailable, also when its answer was lost, and nothing happens twice by that."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest

from tunesmith import retries
from tunesmith.asynchronous import runtime as asynchronous_runtime
from tunesmith.client import AsyncClient, Client, TunesmithApiError
from tunesmith.retries import Retries
from tunesmith.synchronous import runtime

SECRET = {"secret": "whsec_x"}
TUNES = {"data": [], "has_more": False, "total": 0}
Outcome = httpx.Response | type[httpx.TransportError]
Served = tuple[Client, list[httpx.Request]]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the client makes, which take no time."""
    made: list[float] = []

    async def later(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(runtime, "sleep", made.append)
    monkeypatch.setattr(asynchronous_runtime, "sleep", later)
    return made


@pytest.fixture
def serve(pauses: list[float]) -> Callable[..., Served]:
    """Return a function that makes a client of a server with these outcomes, the last of which stays."""

    def serve(*outcomes: Outcome) -> Served:
        asked: list[httpx.Request] = []
        client = Client("http://tunesmith.test", "key")
        client._http = httpx.Client(transport=_transport(asked, outcomes), base_url=client.url)
        client._plain = httpx.Client(transport=_transport(asked, outcomes))
        return client, asked

    return serve


def _transport(asked: list[httpx.Request], outcomes: tuple[Outcome, ...]) -> httpx.MockTransport:
    def answer(request: httpx.Request) -> httpx.Response:
        request.read()
        asked.append(request)
        outcome = outcomes[min(len(asked), len(outcomes)) - 1]
        if isinstance(outcome, httpx.Response):
            return outcome
        raise outcome("lost", request=request)

    return httpx.MockTransport(answer)


def test_a_lost_answer_is_asked_for_again_with_the_same_key(serve: Callable[..., Served]) -> None:
    client, asked = serve(httpx.ReadError, httpx.RemoteProtocolError, httpx.Response(200, json=SECRET))

    assert client.rotate_webhook_secret() == "whsec_x"
    keys = {request.headers["Idempotency-Key"] for request in asked}
    assert (len(asked), len(keys)) == (3, 1)
    client.rotate_webhook_secret()
    assert asked[-1].headers["Idempotency-Key"] not in keys


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_the_pause_grows_and_the_retries_end_with_the_patience(
    serve: Callable[..., Served], pauses: list[float], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(retries.time, "monotonic", lambda: sum(pauses))
    client, asked = serve(httpx.Response(status, json={"detail": "later", "code": "unavailable"}))

    with pytest.raises(TunesmithApiError, match="later"):
        client.tunes()
    assert len(asked) == len(pauses) + 1
    assert 4 <= len(pauses) <= 12
    assert 10 < sum(pauses) <= 20
    # Each is between half and the whole of a length that doubles up to five seconds.
    assert all(0.5 <= pause / min(5, 0.2 * 2**number) <= 1 for number, pause in enumerate(pauses))


def test_a_date_in_retry_after_is_obeyed() -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=10), usegmt=True)
    pause_s = Retries(20).pause_s(httpx.Response(503, headers={"Retry-After": at}))

    assert pause_s is not None
    assert 8 <= pause_s <= 10


def test_a_refused_connection_is_given_up_soon(serve: Callable[..., Served], pauses: list[float]) -> None:
    client, asked = serve(httpx.ConnectError)

    with pytest.raises(httpx.ConnectError):
        client.tunes()
    assert (len(asked), sum(pauses) < 2) == (4, True)


def test_a_mistake_in_the_request_itself_is_not_retried(serve: Callable[..., Served]) -> None:
    client, asked = serve(httpx.LocalProtocolError)

    with pytest.raises(httpx.LocalProtocolError):
        client.tunes()
    assert len(asked) == 1


def test_a_deletion_whose_answer_was_lost_is_done(serve: Callable[..., Served]) -> None:
    gone = httpx.Response(404, json={"detail": "there is none", "code": "not_found"})
    client, _ = serve(httpx.ReadError, gone)
    client.delete_tune("tune_1")

    client, _ = serve(gone)
    with pytest.raises(TunesmithApiError, match="there is none"):
        client.delete_tune("tune_1")


def test_a_change_on_a_version_is_not_repeated_after_its_answer_was_lost(serve: Callable[..., Served]) -> None:
    fields = {"id": "dataset_1", "version": 1, "name": "", "trigger_word": "", "subject_class": "", "files": [], "settings": {}}
    times = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
    client, asked = serve(httpx.Response(200, json=fields | times), httpx.ReadError)
    known = client.dataset("dataset_1")

    with pytest.raises(httpx.ReadError):
        client.change_dataset(known, name="dogs")
    assert [request.headers.get("If-Match") for request in asked] == [None, "1"]


def test_a_file_is_sent_again_from_its_start(serve: Callable[..., Served], tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    client, asked = serve(httpx.WriteError, httpx.Response(503), httpx.Response(200))
    client._put("http://store.test/a", tmp_path / "a")

    assert [request.content for request in asked] == [b"abc"] * 3


def test_a_download_continues_where_it_was_cut(serve: Callable[..., Served], tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"abc")
    client, asked = serve(httpx.ReadError, httpx.Response(206, content=b"def"))
    client._fetch("http://store.test/a", tmp_path / "part")

    assert [request.headers.get("Range") for request in asked] == ["bytes=3-", "bytes=3-"]
    assert (tmp_path / "part").read_bytes() == b"abcdef"

    client, _ = serve(httpx.Response(200, content=b"whole"))
    client._fetch("http://store.test/a", tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == b"whole"


def test_the_asynchronous_client_retries_as_well(pauses: list[float]) -> None:
    async def work() -> None:
        asked: list[httpx.Request] = []
        outcomes = (httpx.ReadError, httpx.Response(503, headers={"Retry-After": "3"}), httpx.Response(200, json=TUNES))
        async with AsyncClient("http://tunesmith.test", "key") as client:
            client._http = httpx.AsyncClient(transport=_transport(asked, outcomes), base_url=client.url)
            assert await client.tunes() == []
        assert len(asked) == 3

    asyncio.run(work())
    assert pauses[1] == 3
