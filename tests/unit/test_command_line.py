"""The command as a whole: its exit codes, its JSON, and the completion of shells."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import typer
from typer.testing import CliRunner

from tests.support.example_server import ExampleServer
from tunesmith import cli, console_command, dataset_commands, failures, tune_commands, tune_create
from tunesmith.client import TunesmithApiError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ExampleServer:
    made = ExampleServer.with_photos(tmp_path / "photos")
    for module in (tune_commands, tune_create, dataset_commands, console_command):
        monkeypatch.setattr(module, "connect", made.client)
    return made


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TunesmithApiError(422, "invalid", "x"), 1),
        (TunesmithApiError(0, "not_configured", "x"), 2),
        (TunesmithApiError(503, "unavailable", "x"), 3),
        (TunesmithApiError(429, "limit_exceeded", "x"), 3),
        (TunesmithApiError(401, "unauthorized", "x"), 4),
        (TunesmithApiError(403, "forbidden", "x"), 4),
        (TunesmithApiError(404, "not_found", "x"), 5),
        (TunesmithApiError(0, "rejected", "x"), 6),
        (TunesmithApiError(0, "cancelled", "x"), 6),
        (TunesmithApiError(499, "", "x"), 1),
        (httpx.ConnectError("x", request=httpx.Request("GET", "http://tunesmith.test")), 3),
        (FileNotFoundError(2, "No such file", "a"), 1),
    ],
)
def test_each_error_has_its_exit_code(error: Exception, code: int) -> None:
    found = failures.line_of(error)

    assert found is not None
    assert found[1] == code


def test_a_mistake_in_the_client_keeps_its_traceback() -> None:
    assert failures.line_of(ValueError("x")) is None
    assert failures.line_of(OSError("x")) is None


def test_the_exit_codes_are_documented() -> None:
    page = (ROOT / "docs" / "command.md").read_text()
    codes = {value for name, value in vars(failures).items() if name.isupper() and isinstance(value, int)}

    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == codes | {0}


def test_every_command_of_the_client_has_json(monkeypatch: pytest.MonkeyPatch) -> None:
    without: list[str] = []
    for name in cli._CLIENT:
        monkeypatch.setattr(sys, "argv", ["tunesmith", name])
        group = typer.main.get_command(cli.app)
        command = group.get_command(typer.Context(group), name)
        each = getattr(command, "commands", {name: command}).values()
        without += [f"{name} {one.name}" for one in each if not any("--json" in option.opts for option in one.params)]

    # What it prints is a shell's program.
    assert without == ["completion completion"]


def test_a_tune_is_watched_to_its_end(server: ExampleServer) -> None:
    done = CliRunner().invoke(tune_commands.tune, ["watch", "my-dog"])

    assert (done.exit_code, done.stdout.splitlines()) == (0, ["tune_1  my-dog  running", "tune_1  my-dog  succeeded"])


def test_a_tune_that_does_not_succeed_is_an_exit_code(server: ExampleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = server.tune_answer
    failed = {"status": "failed", "status_details": "memory"}
    monkeypatch.setattr(server, "tune_answer", lambda number, **fields: answer(number, **(fields | failed)))
    done = CliRunner().invoke(tune_commands.tune, ["watch", "my-dog", "--json"])

    assert done.exit_code == 6
    assert json.loads(done.stdout)["status_details"] == "memory"


def test_a_kohya_folder_needs_no_trigger_word(server: ExampleServer, tmp_path: Path) -> None:
    done = CliRunner().invoke(tune_commands.tune, ["create", "pup", str(tmp_path / "photos" / "10_sks1 dog"), "--json"])

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["details"]["trigger_words"] == ["sks1"]
    asked = server.tunes[-1]["details"]
    assert (asked["steps"], {file["caption"] for file in asked["files"]}) == (400, {"sks1 dog"})
    refused = CliRunner().invoke(tune_commands.tune, ["create", "pup", str(tmp_path / "photos" / "rex.png")])
    assert (refused.exit_code, refused.output[:52]) == (2, "error: --trigger-word: the trigger word is missing: ")


def test_a_clone_has_the_settings_of_the_other_but_for_the_changes(server: ExampleServer) -> None:
    done = CliRunner().invoke(tune_commands.tune, ["clone", "my-dog", "longer", "--steps", "900", "--set", "rank=32"])

    assert done.exit_code == 0, done.output
    asked = server.tunes[-1]
    assert asked["name"] == "longer"
    assert asked["details"] == server.tunes[0]["details"] | {"steps": 900, "rank": 32}


def test_a_dataset_is_made_of_a_folder(server: ExampleServer, tmp_path: Path) -> None:
    done = CliRunner().invoke(dataset_commands.dataset, ["create", "dogs", str(tmp_path / "photos" / "10_sks1 dog")])

    assert done.exit_code == 0, done.output
    [kept] = server.datasets.values()
    assert (kept["trigger_word"], kept["subject_class"]) == ("sks1", "dog")
    assert {(file["file_name"], file["caption"]) for file in kept["files"]} == {("a.png", "sks1 dog"), ("b.png", "sks1 dog")}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tunesmith as", {"asset"}),
        ("tunesmith asset u", {"upload"}),
        ("tunesmith tune watch --j", {"--json"}),
        ("tunesmith generate --ne", {"--negative-prompt"}),
    ],
)
def test_a_shell_completes_commands_and_options(line: str, expected: set[str]) -> None:
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), cli.COMPLETE: "complete_bash"}
    env |= {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    code = "import sys; sys.argv = ['tunesmith']; from tunesmith.cli import main; main()"
    told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False)

    assert set(told.stdout.split()) == expected, told.stderr
