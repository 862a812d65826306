"""The client's part for the history of images, with the answers of a server that is not there."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from services.inference.generations import schemas
from tunesmith import generations
from tunesmith.client import Client, TunesmithApiError


def shown(generation_id: str, status: str = "queued") -> dict[str, Any]:
    """Return a generation as the server answers it."""
    return schemas.Generation(
        id=generation_id,
        group_id=None,
        group=None,
        cell=None,
        engine="sd",
        status=schemas.Status(status),
        request={"prompt": "a star"},
        inputs=schemas.InputImages(),
        images=[],
        notices=[],
        error=None,
        models=[],
        versions={},
        prediction_time_ms=None,
        ahead=0,
        created_at=datetime.now(UTC),
        finished_at=None,
        kept_until=None,
        starred=False,
    ).model_dump(mode="json")


def client_of(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    client = Client("http://tunesmith.test", "key", patience_s=0)
    client._http = httpx.Client(transport=httpx.MockTransport(answer), base_url=client.url)
    return client


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (generations.Generation, schemas.Generation),
        (generations.HistoryImage, schemas.GeneratedImage),
        (generations.GenerationProgress, schemas.Progress),
        (generations.Engine, schemas.EngineAnswer),
    ],
)
def test_the_client_reads_fields_that_the_server_answers(ours: type[BaseModel], theirs: type[BaseModel]) -> None:
    assert ours.model_fields.keys() - theirs.model_fields.keys() == set()


def test_a_request_is_one_that_the_server_takes() -> None:
    sent: list[schemas.CreateGenerations] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(schemas.CreateGenerations.model_validate_json(request.content))
        return httpx.Response(202, json={"group_id": None, "data": [shown("gen_a"), shown("gen_b")]})

    made = client_of(answer).create_generations("a star", variants=[{}, {"steps": 5}], group={"kind": "ab"}, seed=7)

    assert [one.id for one in made] == ["gen_a", "gen_b"]
    assert (sent[0].request.prompt, sent[0].request.seed, sent[0].variants) == ("a star", 7, [{}, {"steps": 5}])


def test_the_history_is_read_page_by_page() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.query.decode())
        ids = ["gen_c", "gen_b"] if len(asked) == 1 else ["gen_a"]
        return httpx.Response(200, json={"data": [shown(one) for one in ids], "has_more": len(asked) == 1})

    found = [one.id for one in client_of(answer).iter_generations(q="star")]

    assert found == ["gen_c", "gen_b", "gen_a"]
    assert asked == ["q=star", "q=star&before=gen_b"]


def test_a_lost_stream_is_continued_with_those_that_have_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.synchronous.runtime.sleep", lambda _s: None)
    asked: list[str] = []
    far = schemas.Progress(id="gen_b", status=schemas.Status.RUNNING, step=1, steps=2, ahead=None, preview=None)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params["ids"])
        if len(asked) == 1:
            first = f"event: progress\ndata: {far.model_dump_json()}\n\n"
            return httpx.Response(200, text=f": \n\n{first}event: done\ndata: {json.dumps(shown('gen_a', 'failed'))}\n\n")
        if len(asked) == 2:
            raise httpx.ReadError("cut", request=request)
        return httpx.Response(200, text=f"event: done\nid: end\ndata: {json.dumps(shown('gen_b', 'succeeded'))}\n\n")

    news = list(client_of(answer).watch_generations(["gen_a", "gen_b"]))

    assert [(type(one).__name__, one.id, one.status) for one in news] == [
        ("GenerationProgress", "gen_b", "running"),
        ("Generation", "gen_a", "failed"),
        ("Generation", "gen_b", "succeeded"),
    ]
    assert asked == ["gen_a,gen_b", "gen_b", "gen_b"]


def test_a_star_a_cancel_and_a_deletion_name_the_generation() -> None:
    sent: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(f"{request.method} {request.url.path} {request.content.decode()}".strip())
        return httpx.Response(204) if request.method == "DELETE" else httpx.Response(200, json=shown("gen_a"))

    client = client_of(answer)
    client.star_generation("gen_a", starred=False)
    client.cancel_generation("gen_a")
    client.delete_generation("gen_a")

    path = "/v1/generations/gen_a"
    assert sent == [f'PATCH {path} {{"starred":false}}', f"POST {path}/cancel", f"DELETE {path}"]


def test_an_error_instead_of_an_image_is_raised() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/0/png"):
            return httpx.Response(200, content=b"png", headers={"Content-Type": "image/png"})
        return httpx.Response(404, json={"detail": "no image", "code": "not_found"})

    client = client_of(answer)

    assert client.generation_png("gen_a") == b"png"
    with pytest.raises(TunesmithApiError, match="no image"):
        client.generation_png("gen_a", 1)
