"""The synchronous client is written from the asynchronous one, and the examples of both are run."""

import ast
import asyncio
import contextlib
import doctest
import importlib
import inspect
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.example_server import ExampleServer
from tests.support.synchronous import PACKAGE, written
from tunesmith.client import AsyncClient, AsyncTune, Tune

MODULES = ("assets", "tunes", "tune", "images", "datasets", "admin")


def _examples(kind: str) -> Iterator[Any]:
    for name in MODULES:
        module = importlib.import_module(f"tunesmith.{kind}.{name}")
        [cls] = [found for _, found in inspect.getmembers(module, inspect.isclass) if found.__module__ == module.__name__]
        for method, function in inspect.getmembers(cls, lambda member: callable(member) and bool(member.__doc__)):
            if function.__qualname__.startswith(cls.__name__):
                test = doctest.DocTestParser().get_doctest(inspect.getdoc(function) or "", {}, f"{name}.{method}", None, None)
                if test.examples:
                    yield pytest.param(test, id=f"{name}.{method}")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExampleServer:
    """The server of the examples, in a folder with the photos that they name."""
    monkeypatch.chdir(tmp_path)
    return ExampleServer.with_photos(tmp_path / "photos")


def test_it_is_what_the_asynchronous_client_says() -> None:
    differ = [str(path.relative_to(PACKAGE)) for path, text in written().items() if path.read_text() != text]

    assert differ == [], "run `python -m tests.support.synchronous`"


@pytest.mark.parametrize("test", list(_examples("synchronous")))
def test_an_example_gives_what_it_shows(server: ExampleServer, test: doctest.DocTest) -> None:
    test.globs = {"client": server.client(), "Tune": Tune}
    told = io.StringIO()
    doctest.DocTestRunner(verbose=False).run(test, out=told.write)

    assert told.getvalue() == ""


@pytest.mark.parametrize("test", list(_examples("asynchronous")))
def test_an_asynchronous_example_gives_what_it_shows(server: ExampleServer, test: doctest.DocTest) -> None:
    async def run() -> None:
        async with AsyncClient("http://tunesmith.test", "key") as client:
            client._http = httpx.AsyncClient(transport=httpx.MockTransport(server.answer), base_url=client.url)
            client._plain = httpx.AsyncClient(transport=httpx.MockTransport(server.store))
            names = {"client": client, "AsyncTune": AsyncTune}
            for example in test.examples:
                assert await _shown(example.source, names) == example.want, example.source

    asyncio.run(run())


async def _shown(source: str, names: dict[str, Any]) -> str:
    """Return what an interactive session prints for a statement."""
    tree = ast.parse(source)
    is_value = isinstance(tree.body[-1], ast.Expr)
    mode: str = "eval" if is_value else "exec"
    compiled = compile(source.strip(), "example", mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        made = eval(compiled, names)
        value = await made if inspect.iscoroutine(made) else made
    return told.getvalue() + (f"{value!r}\n" if is_value and value is not None else "")
