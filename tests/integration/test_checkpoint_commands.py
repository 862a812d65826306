"""Every command of docs/checkpoints.md runs. A file server replaces the hub, and the pins are those of a small checkpoint.

`build-tiny` and `score-tiny` take hours: what they run has tests of its own (test_tiny_build, test_tiny_checkpoints). Here they
are read with the page's arguments.
"""

import hashlib
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from deploy.local import hub
from deploy.local.checkpoints import SHIPPED
from deploy.local.commands import checkpoints as commands
from shared.blobs.store import Blobs
from shared.engines import Engine
from shared.formats.checkpoint import read_file

PAGE = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text()
COMMANDS = re.findall(r"(?:\.venv/bin/)?tunesmith checkpoints ([a-z][^`#\n]*)", PAGE)
TAR = re.findall(r"`(tar [^`]*)`", PAGE)
RUN = {"pull", "use", "list", "export"}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder `folder` in the working directory, and a hub that has it as one file."""
    shutil.copytree(SHIPPED / "tiny-sd15", tmp_path / "folder")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # The table of `list` is cut to the width of the terminal.
    monkeypatch.setenv("COLUMNS", "300")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "hub"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("TUNESMITH_HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield tmp_path
        server.shutdown()
        thread.join()


def _serve(folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = file.read_bytes()
    pin = hub.Pin(
        engine=Engine.SD15,
        repository="someone/model",
        commit="ab" * 20,
        path=file.name,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        licence="test",
    )
    monkeypatch.setitem(hub.PINS, "sd15", pin)
    place = folder / "hub" / pin.repository / "resolve" / pin.commit
    place.mkdir(parents=True)
    shutil.copy(file, place / pin.path)


def test_the_page_names_these_commands() -> None:
    assert {command.split()[0] for command in COMMANDS} == RUN | {"build-tiny", "score-tiny"}
    assert TAR == ["tar -cf model.tar -C folder ."]


def test_the_commands_run_in_their_order(model: Path, blobs: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: str) -> str:
        done = CliRunner().invoke(commands.app, arguments)
        assert done.exit_code == 0, (arguments, done.output, done.exception)
        return done.output

    exports = [shlex.split(command) for command in COMMANDS if command.startswith("export")]
    assert exports == [["export", "FOLDER", "FILE"]]
    run("export", "folder", "FILE.safetensors")
    assert read_file(model / "FILE.safetensors").engine is Engine.SD15
    _serve(model, model / "FILE.safetensors", monkeypatch)

    printed = [run(*shlex.split(command)) for command in COMMANDS if command.split()[0] in RUN - {"export"}]

    assert [output.strip().splitlines()[0].split(" (")[0] for output in printed[:2]] == [
        "octoai:sd15 is ready",
        "octoai:default-sd15 is now octoai:sd15",
    ]
    assert re.search(r"octoai:default-sd15 +octoai:sd15 ", printed[2]), printed[2]


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.split()[0].endswith("-tiny")])
def test_the_commands_of_the_small_checkpoints_are_read(command: str) -> None:
    name, *arguments = shlex.split(command)
    # `score-tiny` is named without its folder.
    arguments = [str(SHIPPED) if word == "FOLDER" else word for word in arguments] or [str(SHIPPED)]
    made = typer.main.get_command(commands.app).get_command(None, name)  # pyright: ignore[reportAttributeAccessIssue]
    assert made.make_context(name, arguments).params


def test_a_folder_is_packed_as_the_page_says(model: Path) -> None:
    subprocess.run(shlex.split(TAR[0]), check=True)
    assert read_file(model / "model.tar").engine is Engine.SD15
