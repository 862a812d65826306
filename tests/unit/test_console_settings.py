"""The console runs without addresses and credentials of the database, the broker and the store, which it does not use."""

import os
from pathlib import Path

import httpx
import pytest

from deploy.local.paths import StackPaths
from deploy.local.stack import CREDENTIALS, EXTERNAL, plan
from services.console.app import create_app
from services.console.settings import ConsoleSettings


async def test_the_console_starts_in_an_environment_without_any_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TUNESMITH_"):
            monkeypatch.delenv(name)

    app = create_app(ConsoleSettings())

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://console.test") as client,
    ):
        assert (await client.get("/health")).json()["status"] == "ok"
        assert (await client.get("/ready")).json()["status"] == "ok"


def test_the_local_stack_gives_the_console_no_credentials(tmp_path: Path) -> None:
    environments = {process.name: process.env for process in plan(StackPaths(tmp_path), 8080).processes}
    backends = {*EXTERNAL, *CREDENTIALS}

    assert backends <= environments["upload"].keys()
    assert not backends & environments["console"].keys()
    assert {"TUNESMITH_UPLOAD_URL", "TUNESMITH_PUBLIC_URL", "TUNESMITH_HTTP_PORT"} <= environments["console"].keys()
