"""The `tunesmith` command. Only what a command needs is imported, so that `--help` answers at once."""

import importlib
import sys
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperGroup

from tunesmith import clone

_COMMANDS = {
    "up": ("deploy.local.commands", "up"),
    "down": ("deploy.local.commands", "down"),
    "env": ("deploy.local.commands", "env"),
    "asset": ("tunesmith.asset_commands", "asset"),
    "tune": ("tunesmith.tune_commands", "tune"),
    "generate": ("tunesmith.commands", "generate"),
    "demo": ("tunesmith.demo", "demo"),
    "checkpoints": ("deploy.local.checkpoints_command", "app"),
    "keys": ("deploy.local.keys", "app"),
    "dlq": ("deploy.local.dlq", "app"),
    "migrate": ("deploy.local.commands", "migrate"),
    "doctor": ("deploy.local.commands", "doctor"),
}
"""Each command's module and attribute."""
_CLIENT = ("asset", "tune", "generate")
"""The commands that the wheel has; the others need a clone."""
_HELP = {
    "up": "Start the local stack.",
    "down": "End the local stack.",
    "env": "Print the exports that point a client at the local stack.",
    "asset": "The library: images, LoRAs, checkpoints, VAEs and textual inversions.",
    "tune": "Fine-tunes.",
    "generate": "Generate images.",
    "demo": "Run the main job and show it in one picture.",
    "checkpoints": "Build, bring and choose base checkpoints.",
    "keys": "API keys.",
    "dlq": "Dead letters: list, replay, drop.",
    "migrate": "Bring a database to the newest schema.",
    "doctor": "Say what is wrong with a machine or a stack, and what to do.",
}


class _Lazy(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the base class gives it
        return list(_COMMANDS if clone.is_clone() else _CLIENT)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        # Help for all of them must not import all of them.
        if not set(sys.argv[1:]) & _COMMANDS.keys():
            return _single(cmd_name, lambda: None, _HELP[cmd_name])
        if cmd_name not in _CLIENT and not clone.is_clone():
            typer.echo(
                f"tunesmith {cmd_name}: needs a clone of Tunesmith, and this is the installed client; run "
                f"`git clone {clone.URL} && cd tunesmith && make install`, then `.venv/bin/tunesmith {cmd_name}` there",
                err=True,
            )
            raise typer.Exit(1)
        module, name = _COMMANDS[cmd_name]
        try:
            found = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            typer.echo(f"tunesmith {cmd_name}: {error.name} is not installed; run `make install` in {clone.ROOT}", err=True)
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
    """Run the command line; an error of the server's is one line on standard error."""
    from tunesmith.client import TunesmithApiError  # noqa: PLC0415 - httpx takes a moment

    try:
        app()
    except TunesmithApiError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
