"""An operator's terms of use are shown on the start page and in the API's description."""

from pathlib import Path

import httpx
import pytest

from services.console import api
from services.console.app import create_app
from services.console.settings import ConsoleSettings

TERMS = "https://example.org/terms"


async def _shown(monkeypatch: pytest.MonkeyPatch, **settings: object) -> tuple[str, dict[str, object]]:
    """Return the start page and the `info` of the API's description, while the other services are unavailable."""
    unavailable = dict.fromkeys(("upload_url", "scheduler_url", "inference_url"), "http://127.0.0.1:9")
    app = create_app(ConsoleSettings(**unavailable, **settings), pages=Path("no such folder"))
    monkeypatch.setattr(api, "merge", lambda own, _others: own)
    monkeypatch.setattr(api.Platform, "documents", _nothing)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://console.test") as client:
        return (await client.get("/")).text, (await client.get("/openapi.json")).json()["info"]


async def _nothing(_platform: object) -> dict[str, object]:
    return {}


async def test_the_terms_are_shown_on_the_start_page_and_in_the_description(monkeypatch: pytest.MonkeyPatch) -> None:
    page, info = await _shown(monkeypatch, terms_url=TERMS)

    assert f'<a href="{TERMS}">terms of use</a>' in page
    assert info["termsOfService"] == TERMS
    assert TERMS in str(info["description"])


async def test_without_terms_none_are_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    page, info = await _shown(monkeypatch)

    assert "terms of use" not in page
    assert info.keys() == {"title", "version"}
