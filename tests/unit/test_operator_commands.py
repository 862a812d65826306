"""`tunesmith keys`, `migrate` and `dlq` say in one line that the database or the broker is down."""

import subprocess
import sys
from collections.abc import Callable

import pytest

Run = Callable[..., tuple[int, str, str]]
NOWHERE = "127.0.0.1:9"
URL = f"postgresql+asyncpg://tunesmith:sekret@{NOWHERE}/tunesmith"


@pytest.fixture
def run() -> Run:
    """Return a function that runs `tunesmith ...` and returns its exit code, its output and its errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = "from tunesmith.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.parametrize("command", [("keys", "list"), ("keys", "create", "x"), ("migrate",)])
def test_a_database_that_is_down_is_one_line(run: Run, command: tuple[str, ...]) -> None:
    code, output, errors = run(*command, "--database-url", URL)

    assert (code, output, errors.count("\n")) == (1, "", 1), errors
    assert errors.startswith(f"error: PostgreSQL at {NOWHERE} cannot be reached (")
    assert "sekret" not in errors


@pytest.mark.parametrize("url", ["not an address", "postgresql+asyncpg://u:p@host:port/name"])
def test_an_address_that_is_none_is_one_line(run: Run, url: str) -> None:
    code, output, errors = run("migrate", "--database-url", url)

    assert (code, output, errors.count("\n")) == (1, "", 1), errors
    assert errors.startswith("error: --database-url: ")


@pytest.mark.parametrize("command", [("list",), ("replay", "x/0"), ("drop", "x/0")])
def test_a_broker_that_is_down_is_one_line(run: Run, command: tuple[str, ...]) -> None:
    code, output, errors = run("dlq", *command, "--kafka", NOWHERE)

    assert (code, output, errors.count("\n")) == (1, "", 1), errors
    assert errors.startswith(f"error: Kafka at {NOWHERE} cannot be reached (")
