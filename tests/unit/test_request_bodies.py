"""A body that cannot be read, or cannot be stored, is explained where it is wrong; redirects stay within TLS."""

import base64
import gzip
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.responses import RedirectResponse
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError

from shared.http import app as web

TEXT = json.dumps({"steps": 1, "name": "\u00e9"}, ensure_ascii=False)
FORM = b'--x\r\nContent-Disposition: form-data; name="steps"\r\n\r\n1\r\n--x--\r\n'
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
JSON = {"Content-Type": "application/json"}


class _Body(BaseModel):
    steps: int
    name: Any = ""
    words: list[Any] = []


class _NotEncodable(Exception):  # noqa: N818 - stands for asyncpg's
    sqlstate = "22021"


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    router = APIRouter()

    @router.post("/steps")
    async def steps(body: _Body) -> int:
        return body.steps

    @router.post("/store/{key}")
    async def store(key: str, body: _Body, text: str = "") -> None:
        raise DBAPIError("INSERT", {}, _NotEncodable())

    @router.get("/away/{where}")
    async def away(where: str) -> RedirectResponse:
        return RedirectResponse(where if where != "elsewhere" else "https://other.test/x")

    monkeypatch.setattr(web, "is_value", lambda error: isinstance(error, DBAPIError))
    app = web.create_app("sample", lifespan=_lifespan, routers=[router])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://sample") as client:
        yield client


async def _problem(
    client: httpx.AsyncClient, content: bytes, headers: dict[str, str], path: str = "/steps"
) -> tuple[list[Any], str]:
    answer = await client.post(path, content=content, headers=headers)
    assert answer.status_code == 422, answer.text
    [problem] = answer.json()["detail"]
    return problem["loc"], problem["msg"]


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({}, "Content-Type: the header is missing; send JSON with Content-Type: application/json"),
        ({"Content-Type": "text/plain"}, "Content-Type: 'text/plain' is not JSON's; send JSON"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, "is not JSON's"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, "is not JSON's"),
    ],
)
async def test_a_wrong_or_missing_content_type_is_named(client: httpx.AsyncClient, headers: dict[str, str], says: str) -> None:
    loc, msg = await _problem(client, TEXT.encode(), headers)

    assert loc == ["header", "Content-Type"]
    assert says in msg


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate, gzip"])
async def test_a_compressed_body_is_named(client: httpx.AsyncClient, encoding: str) -> None:
    loc, msg = await _problem(client, gzip.compress(TEXT.encode()), {**JSON, "Content-Encoding": encoding})

    assert loc == ["header", "Content-Encoding"]
    assert msg == f"Content-Encoding: a body that is compressed with {encoding!r} is not read; send it uncompressed"


@pytest.mark.parametrize(
    ("content", "loc", "says"),
    [
        (TEXT.encode("latin-1"), ["body"], "the body is not UTF-8 at byte"),
        (gzip.compress(TEXT.encode()), ["body"], "the body is compressed with gzip; send it uncompressed"),
        (b"", ["body"], "the body is missing; send JSON"),
        (b'{"steps": 1,}', ["body", 12], "the body is not JSON: "),
        (b"{'steps': 1}", ["body", 1], "the body is not JSON: "),
        (b"steps=1", ["body", 0], r"the body is a form \(urlencoded\); send JSON with Content-Type: application/json"),
        (b"steps=1&name=a+b&words", ["body", 0], r"the body is a form \(urlencoded\)"),
        (b"steps: 1", ["body", 0], "the body is not JSON: Expecting value at character 0"),
        (FORM, ["body", 0], r"the body is a form \(multipart/form-data\); send JSON with Content-Type: application/json"),
        (base64.b64encode(TEXT.encode()), ["body", 0], "the body is JSON in base64; send the JSON itself"),
        (b'"' + base64.b64encode(TEXT.encode()) + b'"', ["body"], "the body is JSON in base64"),
        (base64.urlsafe_b64encode(TEXT.encode()).rstrip(b"="), ["body", 0], "the body is JSON in base64"),
        (PNG + b"\x00", ["body"], "the body is an image; send it base64-encoded as a field of a JSON object, such as init_image"),
        (base64.encodebytes(PNG * 99), ["body", 0], "the body is an image in base64; send it base64-encoded as a field"),
        (json.dumps(TEXT).encode(), ["body"], "the body is a string where a JSON object is expected; .* encode it once"),
        (b"[1]", ["body"], "the body is an array where a JSON object is expected"),
        (b"null", ["body"], "the body is (null|missing)"),
        (b"[" * 100_000, ["body"], "the body nests its lists and objects too deeply"),
        (b'{"steps": ' + b"1" * 5000 + b"}", ["body"], "the body has a number of too many digits"),
    ],
    ids=[
        *("latin-1", "gzip without a header", "nothing", "comma", "quotes", "pairs", "pairs, cut", "YAML", "form"),
        *("base64", "base64, quoted", "base64 of URLs", "image", "image in base64", "twice", "array", "null", "deep", "digits"),
    ],
)
async def test_a_body_that_is_no_json_object_is_explained(
    client: httpx.AsyncClient, content: bytes, loc: list[Any], says: str
) -> None:
    found, msg = await _problem(client, content, JSON)

    assert found == loc
    assert re.match(says, msg), msg


@pytest.mark.parametrize(
    ("headers", "encoding"),
    [
        ({"Content-Type": "application/json; charset=utf-8"}, "utf-8"),
        ({"Content-Type": "Application/JSON"}, "utf-8"),
        ({"Content-Type": "application/merge-patch+json"}, "utf-8"),
        (JSON, "utf-8-sig"),
        (JSON, "utf-16"),
        ({**JSON, "Content-Encoding": "identity"}, "utf-8"),
    ],
)
async def test_every_form_of_json_is_read(client: httpx.AsyncClient, headers: dict[str, str], encoding: str) -> None:
    assert (await client.post("/steps", content=TEXT.encode(encoding), headers=headers)).json() == 1


async def test_a_wrong_field_keeps_its_own_error(client: httpx.AsyncClient) -> None:
    loc, _ = await _problem(client, b'{"steps": "many"}', JSON)

    assert loc == ["body", "steps"]


@pytest.mark.parametrize(
    ("body", "path", "loc", "says"),
    [
        ({"name": "a\0b"}, "/store/x", ["body", "name"], "name: the text has a NUL character; leave it out"),
        ({"words": ["a", {"b": "\0"}]}, "/store/x", ["body", "words", 1, "b"], "b: the text has a NUL"),
        ({"name": {"a\0": 1}}, "/store/x", ["body", "name"], "name: the text has a NUL"),
        ({"name": "\ud800"}, "/store/x", ["body", "name"], "name: the text has half of a surrogate pair"),
        ({"name": -(2**64)}, "/store/x", ["body", "name"], "name: the number is too large"),
        ({}, "/store/x%00", ["path", "key"], "key: the text has a NUL"),
        ({}, "/store/x?text=%00", ["query", "text"], "text: the text has a NUL"),
        ({}, "/store/x", ["request"], "a value cannot be stored"),
    ],
)
async def test_a_value_that_cannot_be_stored_is_named(
    client: httpx.AsyncClient, body: dict[str, Any], path: str, loc: list[Any], says: str
) -> None:
    found, msg = await _problem(client, json.dumps({"steps": 1, **body}).encode(), JSON, path)

    assert found == loc
    assert msg.startswith(says)


@pytest.mark.parametrize(
    ("path", "goes_to"),
    [
        ("/steps/?a=1", "/steps?a=1"),
        ("//steps/", "/steps"),
        ("/away/elsewhere", "https://other.test/x"),
    ],
)
async def test_a_redirect_to_this_server_names_no_scheme(client: httpx.AsyncClient, path: str, goes_to: str) -> None:
    answer = await client.request("POST" if "steps" in path else "GET", f"http://sample{path}", content=b"")

    assert (answer.status_code, answer.headers["Location"]) == (307, goes_to)
