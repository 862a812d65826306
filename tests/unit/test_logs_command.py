"""`tunesmith logs`: the lines of each process, and new ones also after a log was replaced."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from deploy.local.commands.logs import _Tail, logs


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "trainer.log").write_text("".join(f"line {number}\n" for number in range(30)))
    (tmp_path / "logs" / "upload.log").write_text("started\nhalf")
    return tmp_path


def _run(stack: Path, *arguments: str) -> tuple[int, list[str]]:
    app = typer.Typer()
    app.command()(logs)
    done = CliRunner().invoke(app, [*arguments, "--data-dir", str(stack)])
    return done.exit_code, done.output.splitlines()


def test_the_last_lines_of_each_process_are_printed(stack: Path) -> None:
    assert _run(stack, "-n", "2") == (0, ["trainer | line 28", "trainer | line 29", "upload  | started"])
    assert _run(stack, "upload") == (0, ["upload | started"])


def test_what_has_no_log_is_named(stack: Path, tmp_path: Path) -> None:
    assert _run(stack, "worker") == (1, ["error: PROCESSES: worker has no log: give one of trainer, upload"])
    code, [line] = _run(tmp_path / "none")
    assert (code, "there are no logs in" in line) == (1, True)


def test_a_log_is_read_on_and_again_from_its_start_when_it_was_replaced(stack: Path) -> None:
    path = stack / "logs" / "upload.log"
    tail = _Tail(path)
    assert list(tail.lines()) == ["started"]

    with path.open("a") as file:
        file.write(" done\n")
    assert list(tail.lines()) == ["half done"]

    path.replace(path.with_suffix(".log.1"))
    assert list(tail.lines()) == []
    path.write_text("new\n")
    assert list(tail.lines()) == ["new"]
