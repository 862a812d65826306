"""The `tunesmith` command. It imports only the module of the command that runs, so that `--help` is fast."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from tunesmith import clone

_COMMANDS = {
    "up": ("deploy.local.commands.stack", "up"),
    "down": ("deploy.local.commands.stack", "down"),
    "env": ("deploy.local.commands.stack", "env"),
    "asset": ("tunesmith.asset_commands", "asset"),
    "tune": ("tunesmith.tune_commands", "tune"),
    "generate": ("tunesmith.generate_command", "generate"),
    "console": ("tunesmith.console_command", "console"),
    "demo": ("tunesmith.demo", "demo"),
    "checkpoints": ("deploy.local.commands.checkpoints", "app"),
    "keys": ("deploy.local.commands.keys", "app"),
    "dlq": ("deploy.local.commands.dlq", "app"),
    "migrate": ("deploy.local.commands.migrate", "migrate"),
    "doctor": ("deploy.local.commands.doctor", "doctor"),
}
"""The module and the attribute of each command."""
_CLIENT = ("asset", "tune", "generate", "console")
"""The commands that the wheel contains. The others need a clone."""
_HELP = {
    "up": "Start the local stack.",
    "down": "Stop the local stack. Its data stays.",
    "env": "Print the shell commands that point a client at the local stack.",
    "asset": "Upload, import, list and delete assets: images, LoRAs, checkpoints, VAEs, textual inversions.",
    "tune": "Start, watch, list and cancel tunes.",
    "generate": "Generate images.",
    "console": "Open the console in a browser, signed in.",
    "demo": "Upload five images, tune on them, and show images from before and after in one picture.",
    "checkpoints": "Download, list, choose, export and build base checkpoints.",
    "keys": "Create, list and revoke API keys.",
    "dlq": "List, replay and drop dead letters: events that a service could not handle.",
    "migrate": "Bring a database to the newest schema.",
    "doctor": "Check this machine and the local stack, and say what to do about each problem.",
}


class _Lazy(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base class passes it
        return list(_COMMANDS if clone.is_clone() else _CLIENT)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the base class passes it
        if cmd_name not in _COMMANDS:
            return None
        # The list of commands needs one line of each, and must not import their modules.
        if not set(sys.argv[1:]) & _COMMANDS.keys():
            return _single(cmd_name, lambda: None, _HELP[cmd_name])
        if cmd_name not in _CLIENT and not clone.is_clone():
            typer.echo(
                f"error: `tunesmith {cmd_name}` needs a clone of Tunesmith, and this is the installed client: run "
                f"`git clone {clone.URL} && cd tunesmith && make install`, then `.venv/bin/tunesmith {cmd_name}` there",
                err=True,
            )
            raise typer.Exit(1)
        module, name = _COMMANDS[cmd_name]
        try:
            found = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            typer.echo(
                f"error: `tunesmith {cmd_name}` needs {error.name}, which is not installed: run `make install` in {clone.ROOT}",
                err=True,
            )
            raise typer.Exit(1) from error
        return typer.main.get_command(found) if isinstance(found, typer.Typer) else _single(cmd_name, found)


def _single(name: str, function: Callable[..., Any], text: str | None = None) -> Any:
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name, help=text)(function)
    return typer.main.get_command(alone)


app = typer.Typer(
    cls=_Lazy,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Fine-tune Stable Diffusion on your own machines.",
    epilog=None if clone.is_clone() else f"The local stack and its demo need a clone: {clone.URL}",
)


@app.callback()
def _root() -> None:
    """Fine-tune Stable Diffusion on your own machines."""


def main() -> None:
    """Run the command line. An error of the server, an unavailable server or an unreadable file is one line on standard error."""
    import httpx  # noqa: PLC0415 - slow to import

    from tunesmith.client import TunesmithApiError  # noqa: PLC0415 - imports httpx

    try:
        app()
    except TunesmithApiError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        if not isinstance(error.filename, str):
            raise
        typer.echo(f"error: {os.fsencode(error.filename).decode(errors='replace')}: {error.strerror}", err=True)
        sys.exit(1)
    except httpx.TransportError as error:
        typer.echo(
            f"error: {error.request.url} cannot be reached ({error}): check the address, and that its server runs", err=True
        )
        sys.exit(1)
