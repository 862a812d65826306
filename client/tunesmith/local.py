"""Finds the running local stack, so that commands work on it without further ado."""

import os
from pathlib import Path
from typing import NoReturn

import typer

from tunesmith import clone
from tunesmith.client import Client, TunesmithApiError


def connect(data_dir: Path | None = None) -> Client:
    """Return a client of the server that the environment names, or of the running local stack."""
    if not (data_dir is None and os.environ.get("TUNESMITH_URL")) and clone.is_clone():
        from deploy.local import state  # noqa: PLC0415 - the wheel does not have it
        from deploy.local.paths import StackPaths, default_data_dir  # noqa: PLC0415 - as above

        paths = StackPaths((data_dir or default_data_dir()).resolve())
        if running := state.read(paths):
            return Client(running.url, (paths.secrets / "api_key").read_text())
    try:
        return Client()
    except TunesmithApiError as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    """Say what is wrong on standard error and exit with 1."""
    typer.echo(message, err=True)
    raise typer.Exit(1)
