"""How the commands find their server, and how they print."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from rich.console import Console

from tunesmith import clone
from tunesmith.client import Client, TunesmithApiError
from tunesmith.failures import WRONG_LINE, exit_code

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def connect(data_dir: Path | None = None) -> Client:
    """Return a client of the server that the environment names, or of the running local stack. Exits with 2 if there is none."""
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
        fail(str(error), exit_code(error))


def say(message: str) -> None:
    """Print a line as it is: names of files may hold what rich takes for markup or emoji."""
    Console().print(message, markup=False, emoji=False, highlight=False, soft_wrap=True)


def note(message: str, kind: str = "note") -> None:
    """Print a line on standard error, so that a program that reads the output does not get it."""
    Console(stderr=True).print(f"{kind}: {message}", style="dim", markup=False, emoji=False, highlight=False, soft_wrap=True)


def show_json(value: BaseModel | Sequence[BaseModel] | dict[str, Any]) -> None:
    """Print an answer, or a list of answers, as JSON."""
    text = json.dumps(to_jsonable_python(value), indent=2)
    if Console().is_terminal:
        Console().print_json(text)
    else:
        print(text)


def wide() -> Console:
    """Return a console for tables. A script that reads one through a pipe gets whole rows, not the 80 columns of a pipe."""
    return Console(width=None if Console().is_terminal else 240)


def fail(message: str, code: int = WRONG_LINE) -> NoReturn:
    """Print the message as an error on standard error, and exit."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)
