"""How the commands find their server: the environment names it, or a local stack is running."""

import os
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console

from tunesmith import clone
from tunesmith.client import Client, TunesmithApiError


def connect(data_dir: Path | None = None) -> Client:
    """Return a client of the server that the environment names, or of the running local stack. Exits with 1 if there is none."""
    if not (data_dir is None and os.environ.get("TUNESMITH_URL")) and clone.is_clone():
        from deploy.local import state  # noqa: PLC0415 - not in the wheel
        from deploy.local.paths import StackPaths, default_data_dir  # noqa: PLC0415 - not in the wheel

        paths = StackPaths((data_dir or default_data_dir()).resolve())
        if running := state.read(paths):
            if not paths.api_key.exists():
                fail(f"the stack at {running.url} has no API key yet: wait until its first start is done")
            return Client(running.url, paths.api_key.read_text())
    try:
        return Client()
    except TunesmithApiError as error:
        fail(str(error))


def say(message: str, *, style: str | None = None) -> None:
    """Print a line as it is: names of files may hold what rich takes for markup or emoji."""
    Console().print(message, style=style, markup=False, emoji=False, highlight=False, soft_wrap=True)


def fail(message: str) -> NoReturn:
    """Print the message as an error on standard error, and exit with 1."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)
