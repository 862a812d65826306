"""`tunesmith tune create`: each file becomes an asset of its own, a changed one is uploaded, an unchanged one is found again."""

import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from tests.support.library_server import LibraryServer
from tunesmith import tune_commands, tune_create

Create = Callable[..., Result]
HASHED = re.compile(r"[a-zA-Z0-9_-]+-[0-9a-f]{16}")


def _image(color: str, file_format: str = "PNG") -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (64, 64), color).save(held, file_format)
    return held.getvalue()


RED, BLUE = _image("red"), _image("blue")


@pytest.fixture
def server() -> LibraryServer:
    return LibraryServer()


@pytest.fixture
def create(server: LibraryServer, monkeypatch: pytest.MonkeyPatch) -> Create:
    monkeypatch.setattr(tune_create, "connect", server.client)

    def create(*paths: Path, name: str = "dog", options: tuple[str, ...] = ()) -> Result:
        return CliRunner().invoke(
            tune_commands.tune, ["create", name, *map(os.fsdecode, paths), "--trigger-word", "sks1", *options]
        )

    return create


def _trained(server: LibraryServer) -> list[tuple[bytes, str | None]]:
    """Return the bytes and the caption of each image of the last tune."""
    return [(server.files[file["file_id"]], file["caption"]) for file in server.tunes[-1]["details"]["files"]]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cat.jpg", "cat.png"),
        ("Cat.png", "cat.PNG"),
        ("my cat.png", "my-cat.png"),
        ("\u732b.png", "\u72ac.png"),
        ("\u00e9.png", "e.png"),
        ("100% \U0001f600 (1).png", "100% \U0001f603 (1).png"),
        ("my.cat.png", "my-cat.png"),
        ("a/1.png", "b/1.png"),
        ("[red].png", "[/red].png"),
        ("x" * 220 + "1.png", "x" * 220 + "2.png"),
    ],
)
@pytest.mark.parametrize("second", [BLUE, RED], ids=["different", "equal"])
def test_each_file_is_an_asset_with_its_own_caption(
    server: LibraryServer, create: Create, tmp_path: Path, one: str, other: str, second: bytes
) -> None:
    for name, data in ((one, RED), (other, second)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
        (tmp_path / f"{name}.txt").write_text(f"sks1 {name[-5:]}")
    folders = sorted({(tmp_path / name).parent for name in (one, other)})

    done = [create(*folders) for _ in range(2)]

    assert [answer.exit_code for answer in done] == [0, 0], done[0].output + done[1].output
    expected = {(data, f"sks1 {name[-5:]}") for name, data in ((one, RED), (other, second))}
    assert set(_trained(server)) == expected
    assert len(server.assets) == 2
    assert all(HASHED.fullmatch(asset["name"]) and len(asset["name"]) <= 200 for asset in server.assets.values())


def test_a_changed_file_is_uploaded_and_an_unchanged_one_is_not(server: LibraryServer, create: Create, tmp_path: Path) -> None:
    (tmp_path / "dog.png").write_bytes(RED)
    (tmp_path / "cat.png").write_bytes(RED)
    create(tmp_path)
    (tmp_path / "dog.png").write_bytes(BLUE)

    done = create(tmp_path)

    assert [data for data, _ in _trained(server)] == [RED, BLUE]
    assert len(server.files) == 3
    assert done.output.count("already uploaded") == 1


def test_a_renamed_file_is_found_again_by_its_content(server: LibraryServer, create: Create, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(RED)
    (tmp_path / "c.png").write_bytes(RED)
    create(tmp_path)
    (tmp_path / "a.png").rename(tmp_path / "b.png")

    create(tmp_path)

    assert len(server.files) == 2
    assert len({file["file_id"] for file in server.tunes[-1]["details"]["files"]}) == 2


def test_another_tune_has_assets_of_its_own(server: LibraryServer, create: Create, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(RED)

    create(tmp_path)
    create(tmp_path, name="cat")

    assert len(server.assets) == 2


def test_an_asset_that_was_rejected_or_never_completed_is_replaced(server: LibraryServer, create: Create, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(RED)
    create(tmp_path)
    for status in ("ready_to_upload", "rejected", "error"):
        [asset] = server.assets.values()
        asset["status"] = status

        assert create(tmp_path).exit_code == 0
    [asset] = server.assets.values()
    assert (asset["id"], asset["status"]) == ("asset_4", "ready")


def test_rejected_images_are_named_by_their_files(server: LibraryServer, create: Create, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"not an image " + name.encode())
    (tmp_path / "c.png").write_bytes(RED)

    refused = create(tmp_path)

    assert refused.exit_code == 6
    assert not server.tunes
    for name in ("a.png", "b.png"):
        assert re.search(rf"^error: {tmp_path}/{name}: .*rejected: neither PNG nor JPEG$", refused.output, re.MULTILINE)
        (tmp_path / name).write_bytes(_image("green" if name == "a.png" else "lime"))
    assert create(tmp_path).exit_code == 0


def test_an_error_of_the_server_names_the_file(server: LibraryServer, create: Create, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(RED)
    problem = {"loc": ["body", "details", "files", 1, "caption"], "msg": "at most 1000 characters", "type": "string_too_long"}
    server.refusal = httpx.Response(422, json={"detail": [problem], "code": "invalid"})

    refused = create(tmp_path)

    assert refused.exit_code == 1
    assert f"files.1 ({tmp_path}/b.png).caption: at most 1000 characters" in refused.output


def test_a_caption_that_cannot_be_read_ends_the_command_before_any_upload(
    server: LibraryServer, create: Create, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(RED)
    (tmp_path / "a.txt").write_bytes(b"sks1\0 star")

    refused = create(tmp_path)

    assert (refused.exit_code, server.assets) == (2, {})
    assert refused.output.startswith(f"error: {tmp_path}/a.txt: ")


def test_what_is_no_image_is_skipped_and_said(server: LibraryServer, create: Create, tmp_path: Path) -> None:
    litter = ("._a.png", ".DS_Store", "Thumbs.db", "a.png~", ".#a.png", "#a.png#", "~$a.png")
    for name in (*litter, "notes.md", ".hidden.png"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "more").mkdir()
    (tmp_path / "photo").write_bytes(_image("red", "JPEG"))
    (tmp_path / "photo.txt").write_text("sks1 from a phone")
    (tmp_path / "scan.tif").write_bytes(_image("red", "TIFF"))
    (tmp_path / "a.PNG").write_bytes(RED)

    done = create(tmp_path)

    assert _trained(server) == [(RED, None), (_image("red", "JPEG"), "sks1 from a phone")]
    noted = re.findall(rf"note: {tmp_path}/(\S+): skipped, (a folder|a hidden file|no image)", done.output)
    assert noted == [(".hidden.png", "a hidden file"), ("more", "a folder"), ("notes.md", "no image"), ("scan.tif", "no image")]


def test_a_file_that_is_named_twice_is_taken_once(server: LibraryServer, create: Create, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(RED)
    (tmp_path / "a.txt").write_text("sks1")

    (tmp_path / "typo.txt").write_text("sks1")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")

    # As a shell writes out folder/*.
    done = create(tmp_path, *sorted(tmp_path.iterdir()), tmp_path / ".." / tmp_path.name / "a.png")

    assert _trained(server) == [(RED, "sks1"), (RED, None)]
    assert done.output.count("typo.txt") == 1


def test_a_name_that_is_cut_is_said(create: Create, tmp_path: Path) -> None:
    (tmp_path / f"{'x' * 220}.png").write_bytes(RED)

    assert re.search(
        r"note: .*: the name of its asset is cut to 200 characters: dog-x{179}-[0-9a-f]{16}$",
        create(tmp_path).output,
        re.MULTILINE,
    )


def test_a_name_that_is_not_text_can_be_shown(server: LibraryServer, create: Create, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    path.write_bytes(b"")

    refused = create(tmp_path)

    assert (refused.exit_code, server.assets) == (1, {})
    assert "caf\ufffd.png: the file is empty" in refused.output


@pytest.mark.parametrize("name", ["my dog", "\u732b", "x" * 201, ""])
def test_a_name_that_no_tune_can_have_is_refused_before_any_upload(
    server: LibraryServer, create: Create, tmp_path: Path, name: str
) -> None:
    (tmp_path / "a.png").write_bytes(RED)

    refused = create(tmp_path, name=name)

    assert (refused.exit_code, server.assets) == (2, {})
    assert refused.output.startswith("error: NAME: ")


def test_captions_of_no_image_and_of_several_are_said(server: LibraryServer, create: Create, tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.png"):
        (tmp_path / name).write_bytes(RED)
    for name in ("a.txt", "b.txt", "typo.txt"):
        (tmp_path / name).write_text("sks1")

    noted = re.findall(r"note: (.*)", create(tmp_path).output)

    assert noted == [
        f"{tmp_path}/a.txt: the caption of {tmp_path}/a.jpg and {tmp_path}/a.png",
        f"{tmp_path}/typo.txt: skipped, no image has this name",
    ]
