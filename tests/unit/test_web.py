"""Every process answers errors and probes in one form, with a request id."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, Field

from shared.errors import InvalidError, NameTakenError, UnavailableError
from shared.http import app as web


class _Body(BaseModel):
    steps: int = Field(ge=1)


async def _fails() -> None:
    msg = "the broker is unavailable"
    raise ConnectionError(msg)


async def _works() -> None:
    return


def _application() -> FastAPI:
    router = APIRouter()

    @router.post("/steps")
    async def steps(body: _Body) -> int:
        return body.steps

    @router.get("/raise/{kind}")
    async def throw(kind: str) -> None:
        match kind:
            case "taken":
                raise NameTakenError("name: 'dog' is taken")
            case "invalid":
                raise InvalidError("steps: 0 is below 1", loc=("body", "details", "steps"))
            case "unavailable":
                raise UnavailableError("the broker is unavailable", headers={"Retry-After": "2"})
            case "refused":
                raise ConnectionRefusedError
            case _:
                raise ZeroDivisionError

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield

    return web.create_app(
        "sample", lifespan=lifespan, routers=[router], ready={"database": _works, "broker": _fails}, live={"loop": _works}
    )


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(_application()), base_url="http://sample") as client:
        yield client


async def test_a_wrong_body_is_a_422_with_a_list_of_loc_msg_type(client: httpx.AsyncClient) -> None:
    answer = await client.post("/steps", json={"steps": 0})

    assert answer.status_code == 422
    [problem] = answer.json()["detail"]
    assert problem["loc"] == ["body", "steps"]
    assert set(problem) == {"loc", "msg", "type"}


async def test_an_invalid_field_found_later_has_the_same_form(client: httpx.AsyncClient) -> None:
    answer = await client.get("/raise/invalid")

    assert answer.status_code == 422
    assert answer.json()["detail"] == [{"loc": ["body", "details", "steps"], "msg": "steps: 0 is below 1", "type": "value_error"}]


@pytest.mark.parametrize(
    ("kind", "status", "code", "detail"),
    [
        ("taken", 409, "name_taken", "name: 'dog' is taken"),
        ("unavailable", 503, "unavailable", "the broker is unavailable"),
        ("refused", 503, "unavailable", "a part of the platform is unavailable; try again"),
    ],
)
async def test_errors_carry_their_code_and_say_what_is_wrong(
    client: httpx.AsyncClient, kind: str, status: int, code: str, detail: str
) -> None:
    answer = await client.get(f"/raise/{kind}")

    assert (answer.status_code, answer.json()) == (status, {"code": code, "detail": detail})


async def test_an_error_says_when_to_retry(client: httpx.AsyncClient) -> None:
    assert (await client.get("/raise/unavailable")).headers["Retry-After"] == "2"


@pytest.mark.parametrize("path", ["/health", "/nowhere", "/raise/taken", "/raise/crash"])
async def test_every_answer_has_a_request_id_even_after_a_crash(client: httpx.AsyncClient, path: str) -> None:
    answers = [await client.get(path) for _ in range(2)]

    assert len({answer.headers["X-User-Request-ID"] for answer in answers}) == 2
    assert all(answer.headers["content-type"] == "application/json" for answer in answers)


async def test_a_crash_is_a_500_that_discloses_nothing(client: httpx.AsyncClient) -> None:
    answer = await client.get("/raise/crash")

    assert answer.status_code == 500
    assert "ZeroDivision" not in answer.text


async def test_readiness_names_what_is_unavailable_and_liveness_ignores_it(client: httpx.AsyncClient) -> None:
    ready, live = await client.get("/ready"), await client.get("/health")

    assert (ready.status_code, ready.json()["problems"]) == (503, {"broker": "the broker is unavailable"})
    assert live.status_code == 200


async def test_a_check_that_does_not_end_runs_once_however_often_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_CHECK_TIMEOUT_S", 0.01)
    answered, calls = asyncio.Event(), 0

    async def store() -> None:
        nonlocal calls
        calls += 1
        await answered.wait()

    probes = web._probes("sample", {"store": store}, {})
    app = FastAPI()
    app.include_router(probes)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sample") as client:
        silent = [await client.get("/ready") for _ in range(5)]
        calls_in_silence = calls
        answered.set()
        after = [await client.get("/ready") for _ in range(2)]

    assert {answer.status_code for answer in silent} == {503}
    assert silent[0].json()["problems"] == {"store": "no answer for 0 s"}
    assert {answer.status_code for answer in after} == {200}
    assert calls_in_silence == 1
    assert calls > 1, "it is checked again"
