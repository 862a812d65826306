"""`tunesmith asset upload`: folders and patterns, several files at a time, and what is uploaded already is not sent again."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.support.example_server import drawn
from tests.support.library_server import LibraryServer
from tunesmith import asset_commands

Asset = Callable[..., Result]


@pytest.fixture
def server() -> LibraryServer:
    return LibraryServer()


@pytest.fixture
def asset(server: LibraryServer, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Asset:
    """Return a function that runs `tunesmith asset ...`."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    monkeypatch.setattr(asset_commands, "connect", server.client)
    return lambda *arguments: CliRunner().invoke(asset_commands.asset, [*map(str, arguments)])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with three images."""
    for name, colour in {"a.png": "red", "b.png": "blue", "more/deep/c.png": "green"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(drawn(colour))
    return tmp_path


def test_folders_and_patterns_are_read(asset: Asset, server: LibraryServer, photos: Path) -> None:
    done = asset("upload", photos, f"{photos}/**/c.png")

    assert done.exit_code == 0, done.output
    assert {item["name"] for item in server.assets.values()} == {"a", "b", "c"}
    assert sorted(line.split()[1:] for line in done.stdout.splitlines()) == [["a", "ready"], ["b", "ready"], ["c", "ready"]]


def test_a_pattern_that_no_file_has_is_named(asset: Asset, photos: Path) -> None:
    refused = asset("upload", f"{photos}/*.webp")

    assert (refused.exit_code, refused.output) == (
        2,
        f"error: {photos}/*.webp: there is no such file or folder: check the path\n",
    )


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_cut_upload_is_resumed_and_the_rest_is_not_sent_again(
    asset: Asset, server: LibraryServer, photos: Path, at_once: int
) -> None:
    server.cut_uploads = 1
    cut = asset("upload", photos, "--at-once", at_once)
    assert (cut.exit_code, len(server.files)) == (3, 1)
    before = dict(server.files)

    done = asset("upload", photos, "--at-once", at_once)

    assert done.exit_code == 0, done.output
    assert len(re.findall("resuming the upload of", done.output)) == 1
    assert len(re.findall("which is already uploaded", done.output)) == 1
    assert len(server.assets) == 2
    assert before.items() <= server.files.items()


def test_a_changed_file_gets_a_name_of_its_own(asset: Asset, server: LibraryServer, photos: Path) -> None:
    asset("upload", photos / "a.png")
    (photos / "a.png").write_bytes(drawn("white"))

    assert asset("upload", photos / "a.png").exit_code == 0
    assert [bool(re.fullmatch("a-[0-9a-f]{16}", item["name"])) for item in server.assets.values()] == [False, True]


def test_a_rejected_file_does_not_stop_the_others(asset: Asset, server: LibraryServer, photos: Path) -> None:
    (photos / "bad.png").write_bytes(b"not an image")

    done = asset("upload", photos, "--json")

    assert done.exit_code == 6
    assert {item["name"] for item in json.loads(done.stdout)} == {"a", "b"}
    assert done.stderr.startswith(f"note: {photos}/more: skipped")
    assert f"error: {photos}/bad.png: bad: rejected: neither PNG nor JPEG" in done.stderr


def test_assets_are_downloaded_under_their_names(asset: Asset, photos: Path, tmp_path: Path) -> None:
    asset("upload", photos / "a.png", photos / "b.png")
    out = tmp_path / "out"

    done = asset("download", "a", "b", "--out", out)

    assert done.stdout.splitlines() == [f"{out}/a.png", f"{out}/b.png"]
    assert (out / "a.png").read_bytes() == (photos / "a.png").read_bytes()
    assert {path.name for path in out.iterdir()} == {"a.png", "b.png"}


def test_a_download_that_was_cut_is_continued(asset: Asset, server: LibraryServer, photos: Path, tmp_path: Path) -> None:
    asset("upload", photos / "a.png")
    [asset_id] = server.assets
    whole = (photos / "a.png").read_bytes()
    # Only the end is asked for: the start is what an earlier call has left.
    (tmp_path / f".{asset_id}.sent.part").write_bytes(b"\x89PNG" + bytes(6))

    asset("download", "a", "--out", tmp_path)

    assert (tmp_path / "a.png").read_bytes() == b"\x89PNG" + bytes(6) + whole[10:]


def test_a_lora_is_downloaded_in_the_layout_of_other_programs(
    asset: Asset, server: LibraryServer, photos: Path, tmp_path: Path
) -> None:
    asset("upload", photos / "a.png")
    [asset_id] = server.assets
    server.files[f"{asset_id}-kohya"] = b"as kohya has it"

    done = asset("download", "a", "--format", "kohya", "--out", tmp_path)

    assert done.stdout == f"{tmp_path}/a.kohya.safetensors\n"
    assert (tmp_path / "a.kohya.safetensors").read_bytes() == b"as kohya has it"


def test_an_asset_that_is_not_ready_has_no_file(asset: Asset, server: LibraryServer, photos: Path) -> None:
    asset("upload", photos / "a.png")
    [item] = server.assets.values()
    item["status"] = "ready_to_upload"

    assert "so it has no file to download: wait until it is ready" in str(asset("download", "a").exception)


def test_lists_are_json_on_request(asset: Asset, photos: Path) -> None:
    asset("upload", photos / "a.png")

    [listed] = json.loads(asset("list", "--json").stdout)
    assert (listed["name"], listed["status"]) == ("a", "ready")
    assert json.loads(asset("show", "a").stdout) == listed
