"""The API description is true: its examples run, and every response conforms to it, whatever is sent."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from shared.accounts import accounts
from shared.blobs.store import Blobs
from shared.settings import ServiceSettings
from tests.support.platform_world import Platform, drawing, operations, running

# Whole services run in this process: stopping a client of a slow broker times out, which drops its connection unclosed.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SEED = 20
EXAMPLES = 6
"""Generated requests of each kind (valid and invalid) for each operation; `make faults` sends many more."""
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)
IDS = {"file_id": "asset_01hf3a2qw7ek6vshbhd9c9yywd", "lora": "watercolour"}
"""The assets that the examples name."""
PATHS = {"engine": "sd"}


@pytest.fixture
async def platform(make_settings: Callable[..., ServiceSettings], blobs: Blobs) -> AsyncIterator[Platform]:
    async with running(make_settings, blobs, max_requests_per_minute=10**6) as platform, drawing(platform):
        await platform.add_base()
        yield platform


def _examples(document: dict[str, Any], operation: dict[str, Any]) -> list[Any]:
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema["examples"]


async def test_every_example_runs(platform: Platform) -> None:
    account_id = await platform.account("reader")
    await platform.add_asset(account_id, "photo", asset_id=IDS["file_id"])
    await platform.add_asset(account_id, IDS["lora"], "lora")
    ran = 0
    async with platform.client(await platform.key(account_id, *accounts.USER_SCOPES, "admin")) as client:
        document = (await client.get("/openapi.json")).json()
        dataset_id = (await client.post("/v1/datasets", json={})).json()["id"]
        made = await client.post("/v1/generations", json={"engine": "sd", "request": {"prompt": "a cat"}})
        generation_id = made.json()["data"][0]["id"]
        for name in operations(document):
            method, path = name.split(" ")
            operation = document["paths"][path][method.lower()]
            if "requestBody" not in operation:
                continue
            for example in _examples(document, operation):
                url = path.format(**PATHS, account_id=account_id, dataset_id=dataset_id, generation_id=generation_id)
                headers = {"If-Match": "1"} if method == "PUT" else {}
                answer = await client.request(method, url, json=example, headers=headers)

                assert answer.is_success, (name, example, answer.text)
                assert str(answer.status_code) in operation["responses"], name
                ran += 1
    assert ran >= 6


async def _schemathesis(platform: Platform, examples: int, folder: Path) -> tuple[int, str]:
    secret = await platform.key(await platform.account("tester"), *accounts.USER_SCOPES, "admin")
    command = [Path(sys.executable).parent / "schemathesis", "run", f"{platform.url}/openapi.json"]
    options = {
        "--header": f"Authorization: Bearer {secret}",
        "--checks": ",".join(CHECKS),
        "--phases": "examples,fuzzing",
        "--max-examples": str(examples),
        "--seed": str(SEED),
        "--generation-database": "none",
        "--suppress-health-check": "all",
        "--warnings": "off",
        "--request-timeout": "60",
    }
    arguments = [text for option in options.items() for text in option]
    process = await asyncio.create_subprocess_exec(
        *command,
        *arguments,
        "--no-color",
        "--no-shrink",
        "--continue-on-failure",
        cwd=folder,
        env=os.environ | {"COLUMNS": "160"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_every_response_conforms_to_the_description(platform: Platform, tmp_path: Path) -> None:
    code, output = await _schemathesis(platform, EXAMPLES, tmp_path)

    assert code == 0, output
    assert f"Tested: {len(operations(platform.document))}" in output, output


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_every_response_to_many_requests_conforms_to_the_description(platform: Platform, tmp_path: Path) -> None:
    code, output = await _schemathesis(platform, 200, tmp_path)

    assert code == 0, output
