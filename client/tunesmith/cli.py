"""The `tunesmith` command. It imports only the module of the command that runs, so that `--help` is fast."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.completion import get_completion_inspect_parameters
from typer.core import TyperGroup

from tunesmith import clone

_COMMANDS = {
    "up": ("deploy.local.commands.stack", "up"),
    "down": ("deploy.local.commands.stack", "down"),
    "env": ("deploy.local.commands.stack", "env"),
    "logs": ("deploy.local.commands.logs", "logs"),
    "asset": ("tunesmith.asset_commands", "asset"),
    "tune": ("tunesmith.tune_commands", "tune"),
    "dataset": ("tunesmith.dataset_commands", "dataset"),
    "generate": ("tunesmith.generate_command", "generate"),
    "console": ("tunesmith.console_command", "console"),
    "admin": ("tunesmith.admin_commands", "admin"),
    "completion": ("tunesmith.completion_command", "completion"),
    "demo": ("tunesmith.demo", "demo"),
    "checkpoints": ("deploy.local.commands.checkpoints", "app"),
    "keys": ("deploy.local.commands.keys", "app"),
    "dlq": ("deploy.local.commands.dlq", "app"),
    "migrate": ("deploy.local.commands.migrate", "migrate"),
    "doctor": ("deploy.local.commands.doctor", "doctor"),
}
"""The module and the attribute of each command."""
_CLIENT = ("asset", "tune", "dataset", "generate", "console", "admin", "completion")
"""The commands that the wheel contains. The others need a clone."""
_HELP = {
    "up": "Start the local stack.",
    "down": "Stop the local stack. Its data stays.",
    "env": "Print the shell commands that point a client at the local stack.",
    "logs": "Print the logs of the local stack.",
    "asset": "Upload, import, list, download and delete assets: images, LoRAs, checkpoints, VAEs, textual inversions.",
    "tune": "Start, watch, list, clone and cancel tunes.",
    "dataset": "Keep, list and delete the images and captions of tunes.",
    "generate": "Generate images.",
    "console": "Open the console in a browser, signed in.",
    "admin": "Create accounts and keys and set limits, with a key that has the scope admin.",
    "completion": "Print what a shell needs to complete commands and options.",
    "demo": "Upload five images, tune on them, and show images from before and after in one picture.",
    "checkpoints": "Download, list, choose, export and build base checkpoints.",
    "keys": "Create, list and revoke API keys.",
    "dlq": "List, replay and drop dead letters: events that a service could not handle.",
    "migrate": "Bring a database to the newest schema.",
    "doctor": "Check this machine and the local stack, and say what to do about each problem.",
}


COMPLETE = "_TUNESMITH_COMPLETE"
"""Set by a shell while it asks for completions."""


def _words() -> set[str]:
    """Return the words of the line that is run or completed."""
    if COMPLETE in os.environ:
        return set(os.environ.get("COMP_WORDS", os.environ.get("_TYPER_COMPLETE_ARGS", "")).split())
    return set(sys.argv[1:])


class _Lazy(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base class passes it
        return list(_COMMANDS if clone.is_clone() else _CLIENT)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the base class passes it
        if cmd_name not in _COMMANDS:
            return None
        # The list of commands needs one line of each, and must not import their modules.
        if not _words() & _COMMANDS.keys():
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
    """Run the command. An error of the server, an unavailable server or an unreadable file is one line on standard error."""
    from tunesmith.failures import line_of  # noqa: PLC0415 - slow to import

    if COMPLETE in os.environ:
        # Typer 0.29 prepares the completion of its shells only for an application that has options for it.
        get_completion_inspect_parameters()
    try:
        app()
    except Exception as error:
        if (found := line_of(error)) is None:
            raise
        typer.echo(f"error: {found[0]}", err=True)
        sys.exit(found[1])
