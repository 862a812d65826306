"""The command line's asset commands, down to the requests that they make."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from tests.support.library_server import LibraryServer
from tests.support.upload_world import png
from tunesmith import asset_commands
from tunesmith.client import Client

ASSET = {
    "id": "asset_1", "asset_type": "file", "name": "cat", "status": "ready", "status_details": "", "size_bytes": 9,
    "created_at": "2026-01-01T00:00:00Z", "data": {"asset_type": "file"},
}  # fmt: skip
SD15 = "image/stable-diffusion-v1-5"


@pytest.fixture(autouse=True)
def _journal(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what is remembered about uploads away from the user's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))


Run = Callable[..., tuple[str, list[tuple[str, str, Any]]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs `tunesmith asset ...` against a server that agrees to all, and tells what requests it got."""
    asked: list[tuple[str, str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        content = request.read()
        body = json.loads(content) if request.headers.get("Content-Type") == "application/json" else content
        asked.append((request.method, request.url.raw_path.decode(), body))
        if request.url.path == "/v1/assets" and request.method == "GET":
            return httpx.Response(200, json={"data": [ASSET], "has_more": False, "total": 1})
        transfer = {"type": "presigned-url", "put_url": "http://store.test/put", "get_url": ""}
        return httpx.Response(200, json={"asset": ASSET, "transfer_api": transfer, "error": None})

    def connect() -> Client:
        client = Client("http://tunesmith.test", "key")
        client._http = httpx.Client(transport=httpx.MockTransport(answer), base_url=client.url)
        client._plain = httpx.Client(transport=httpx.MockTransport(answer))
        return client

    def run(*arguments: str) -> tuple[str, list[tuple[str, str, Any]]]:
        done = CliRunner().invoke(asset_commands.asset, [*arguments], env={"HF_TOKEN": "hf_secret"})
        assert done.exit_code in {0, 2}, done.output
        return done.output, asked

    monkeypatch.setattr(asset_commands, "connect", connect)
    return run


def test_a_file_is_created_sent_and_completed(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "my cat.png"
    path.write_bytes(png())

    output, asked = run("create", str(path), "--description", "a cat")

    assert output.split() == ["asset_1", "cat", "ready"]
    data = {"asset_type": "file", "file_format": "png"}
    made = {"name": "my-cat", "asset_type": "file", "data": data, "description": "a cat", "is_public": False}
    made["size_bytes"] = len(png())
    assert asked[0] == ("POST", "/v1/assets", made)
    assert asked[1] == ("PUT", "/put", png())
    assert asked[2][:2] == ("POST", "/v1/assets/asset_1/complete-upload")


@pytest.mark.parametrize("asset_type", ["lora", "checkpoint", "vae", "textual_inversion"])
def test_weights_of_every_type_are_imported_with_their_data(run: Run, asset_type: str) -> None:
    url = "https://huggingface.co/a/b/resolve/main/c.safetensors"

    run("create", "--url", url, "--name", "c", "--type", asset_type, "--engine", SD15, "--trigger-word", "sks1")

    _, _, body = run("list")[1][0]
    data = {"asset_type": asset_type, "engine": SD15, "trigger_words": ["sks1"]}
    assert (body["url"], body["data"]) == (url, data)
    assert "hf_token_secret" not in body


def test_a_repositorys_token_comes_from_the_environment(run: Run) -> None:
    _, asked = run("create", "--hf-repo", "a/b", "--name", "c", "--type", "lora", "--engine", SD15)

    assert (asked[0][2]["hf_repo"], asked[0][2]["hf_token_secret"]) == ("a/b", "hf_secret")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "error: FILE, --url and --hf-repo: give exactly one of them"),
        (["--url", "https://a/b", "--hf-repo", "a/b"], "error: FILE, --url and --hf-repo: give exactly one of them"),
        (["--url", "https://a/b"], "error: --name: required with --url and --hf-repo"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_any_request(run: Run, arguments: list[str], said: str) -> None:
    output, asked = run("create", *arguments)

    assert (output.strip(), asked) == (said, [])


def test_a_list_is_filtered_by_the_server(run: Run) -> None:
    output, asked = run("list", "--type", "lora", "--type", "vae", "--engine", SD15, "--public")

    query = "asset_type=lora&asset_type=vae&engine=image%2Fstable-diffusion-v1-5&owner=octoai&offset=0"
    assert asked[0][1] == f"/v1/assets?{query}"
    assert "asset_1" in output


def test_an_asset_is_shown_and_deleted_by_its_name(run: Run) -> None:
    output, _ = run("show", "octoai:default-sd15")
    _, asked = run("delete", "cat")

    assert json.loads(output)["id"] == "asset_1"
    assert [call[:2] for call in asked[-2:]] == [("GET", "/v1/assets/cat"), ("DELETE", "/v1/assets/asset_1")]


def test_files_whose_names_become_one_are_each_uploaded_and_found_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    server = LibraryServer()
    monkeypatch.setattr(asset_commands, "connect", server.client)
    files = [tmp_path / name for name in ("my cat.png", "my-cat.png", "\u732b.png", "\u72ac.png")]
    for number, file in enumerate(files):
        file.write_bytes(png() + bytes([number]))

    done = [CliRunner().invoke(asset_commands.asset, ["upload", *map(str, files[:2])]) for _ in range(2)]
    CliRunner().invoke(asset_commands.asset, ["upload", *map(str, files[2:])])

    assert [answer.exit_code for answer in done] == [0, 0]
    names = [asset["name"] for asset in server.assets.values()]
    assert names[0] == "my-cat"
    assert sorted(server.files.values()) == sorted(file.read_bytes() for file in files)
    assert re.search(r"my cat.png: using my-cat, which is already uploaded", done[1].output)
    assert re.search(
        r"note: .*my-cat.png: another asset has the name my-cat, so this one is named my-cat-[0-9a-f]{16}", done[0].output
    )
    assert re.search(r"my-cat.png: using my-cat-[0-9a-f]{16}, which is already uploaded", done[1].output)
    assert all(re.fullmatch("file-[0-9a-f]{16}", name) for name in names[-2:])


def test_a_rejected_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(asset_commands, "connect", LibraryServer().client)
    (tmp_path / "a.png").write_bytes(b"not an image")

    refused = CliRunner().invoke(asset_commands.asset, ["upload", str(tmp_path / "a.png")])

    assert (refused.exit_code, refused.output) == (6, f"error: {tmp_path}/a.png: a: rejected: neither PNG nor JPEG\n")
