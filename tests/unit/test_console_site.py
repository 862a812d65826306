"""How the console serves its built pages, and what it answers where they are not built."""

import base64
import gzip
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from services.console.app import create_app
from services.console.settings import ConsoleSettings

SCRIPT = "\n\t\t\tstart();\n\t\t"
PAGE = f'<!doctype html><link href="/_app/immutable/a.1f.css"><script>{SCRIPT}</script>'
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
UNAVAILABLE = dict.fromkeys(("upload_url", "scheduler_url", "inference_url"), "http://127.0.0.1:9")


def _browser(folder: Path) -> httpx.AsyncClient:
    app = create_app(ConsoleSettings(**UNAVAILABLE), pages=folder)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://console.test")


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    pages = tmp_path / "pages"
    (pages / "_app" / "immutable").mkdir(parents=True)
    (pages / "index.html").write_text(PAGE)
    script = pages / "_app" / "immutable" / "a.1f.js"
    script.write_text("plain")
    script.with_name("a.1f.js.gz").write_bytes(gzip.compress(b"compressed"))
    (pages / "favicon.svg").write_text("<svg/>")
    (tmp_path / "secret").write_text("not a page")
    async with _browser(pages) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/tunes", "/tunes/new/dataset_1", "/index.html"])
async def test_each_address_of_the_console_is_one_page(browser: httpx.AsyncClient, path: str) -> None:
    answer = await browser.get(path, headers=HTML)

    assert (answer.status_code, answer.text) == (200, PAGE)
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["Content-Type"].startswith("text/html")


async def test_the_page_runs_its_own_scripts_only(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/tunes", headers=HTML)

    rules = dict(rule.split(" ", 1) for rule in answer.headers["Content-Security-Policy"].split("; "))
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert rules["script-src"] == f"'self' 'sha256-{digest}'"
    assert (rules["default-src"], rules["style-src"], rules["connect-src"]) == ("'none'", "'self'", "'self'")
    assert rules["frame-ancestors"] == "'none'"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"


async def test_files_with_a_hash_in_their_name_are_kept_for_a_year(browser: httpx.AsyncClient) -> None:
    script = await browser.get("/_app/immutable/a.1f.js", headers={"Accept-Encoding": "identity"})
    icon = await browser.get("/favicon.svg")

    assert (script.text, script.headers["Cache-Control"]) == ("plain", "public, max-age=31536000, immutable")
    assert script.headers["Content-Type"].startswith("text/javascript")
    assert icon.headers["Cache-Control"] == "no-cache"


async def test_a_compressed_copy_is_sent_to_browsers_that_take_it(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/_app/immutable/a.1f.js", headers={"Accept-Encoding": "gzip, br"})

    assert (answer.text, answer.headers["Content-Encoding"]) == ("compressed", "gzip")
    assert answer.headers["Content-Type"].startswith("text/javascript")
    assert answer.headers["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize("path", ["/_app/immutable/old.js", "/../secret", "/%2e%2e/secret", "/v1/nothing"])
async def test_what_is_no_file_is_not_found(browser: httpx.AsyncClient, path: str) -> None:
    answer = await browser.get(path)

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_without_built_pages_the_start_page_says_how_to_build_them(tmp_path: Path) -> None:
    async with _browser(tmp_path) as browser:
        start = await browser.get("/", headers=HTML)
        missing = await browser.get("/tunes", headers=HTML)

    assert start.status_code == 200
    assert "make install" in start.text
    assert missing.status_code == 404


async def test_pages_that_are_built_while_the_console_runs_are_served(tmp_path: Path) -> None:
    async with _browser(tmp_path) as browser:
        assert (await browser.get("/tunes", headers=HTML)).status_code == 404

        (tmp_path / "new.js").write_text("new")
        (tmp_path / "index.html").write_text(PAGE)

        assert (await browser.get("/tunes", headers=HTML)).text == PAGE
        assert (await browser.get("/new.js")).text == "new"


async def test_the_pages_learn_where_the_server_is_and_which_parts_are_ready(browser: httpx.AsyncClient) -> None:
    answer = (await browser.get("/console/system")).json()

    assert answer["public_url"] == "http://127.0.0.1:8080"
    assert {part["name"]: part["ready"] for part in answer["parts"]} == dict.fromkeys(("upload", "scheduler", "inference"), False)
