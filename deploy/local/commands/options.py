"""What the commands have in common: the option that names a stack, and how they report what is wrong."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import asyncpg
import typer
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from deploy.local import state
from deploy.local.paths import StackPaths, default_data_dir
from shared.errors import TunesmithError
from shared.failures import is_unavailable, is_unmigrated

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="The stack's data folder. Default: .data in the clone.")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        envvar="TUNESMITH_DATABASE_URL",
        help="postgresql+asyncpg://USER:PASSWORD@HOST:PORT/NAME. Default: the running local stack's database.",
    ),
]


def stack_paths(data_dir: Path | None) -> StackPaths:
    """Return the paths of the stack in this folder, or of the default stack."""
    return StackPaths((data_dir or default_data_dir()).resolve())


def address(option: str, given: str | None, variable: str, data_dir: Path | None) -> str:
    """Return the address that was given with `option`, or the running local stack's. Exits with 1 when there is neither."""
    if given is not None:
        return given
    running = state.read(stack_paths(data_dir))
    if running is None:
        fail(f"no local stack is running: start one with `tunesmith up`, or give {option} or {variable}")
    return running.env[variable]


def fail(message: str) -> NoReturn:
    """Print the message as an error on standard error, and exit with 1."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)


@contextmanager
def exit_on_error() -> Generator[None]:
    """Print an error of ours as one line, without a traceback, and exit with 1."""
    try:
        yield
    except TunesmithError as error:
        fail(str(error))


@contextmanager
def exit_on_database_error(url: str) -> Generator[None]:
    """Do as `exit_on_error`, also for a database that does not answer, refuses the connection, or has no tables yet."""
    try:
        parsed = make_url(url)
        # The password stays out of what is printed.
        where = f"PostgreSQL at {parsed.host}:{parsed.port or 5432}"
    except (ArgumentError, ValueError):
        fail("--database-url: it is not an address of a database: give postgresql+asyncpg://USER:PASSWORD@HOST:PORT/NAME")
    try:
        with exit_on_error():
            yield
    except Exception as error:
        cause = (error.orig and error.orig.__cause__) or error.orig if isinstance(error, DBAPIError) else error
        reason = (str(cause).splitlines() or [type(error).__name__])[0]
        if is_unmigrated(error):
            fail(f"the database {parsed.database} at {parsed.host} has not the newest schema ({reason}): run `tunesmith migrate`")
        if is_unavailable(error):
            fail(f"{where} cannot be reached ({reason}): check the address, and that the server runs")
        if isinstance(error, DBAPIError | asyncpg.PostgresError):
            fail(f"{where} refuses the command ({reason}): check user, password and name of the database")
        raise
