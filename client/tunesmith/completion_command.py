"""`tunesmith completion`: what a shell needs to complete commands and options."""

import os
from pathlib import Path
from typing import Annotated

import typer
from typer.completion import get_completion_script  # pyright: ignore[reportPrivateImportUsage] - it has no public name

from tunesmith.cli import COMPLETE
from tunesmith.local import fail

_SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")


def completion(
    shell: Annotated[str | None, typer.Argument(help="bash, zsh, fish or powershell. Default: your login shell.")] = None,
) -> None:
    """Print the completion for a shell.

    For bash, add this line to ~/.bashrc: eval "$(tunesmith completion bash)"
    """
    chosen = shell or Path(os.environ.get("SHELL", "")).name
    if chosen not in _SHELLS:
        fail(f"SHELL: {chosen or 'it'} is not supported: give one of {', '.join(_SHELLS)}")
    print(get_completion_script(prog_name="tunesmith", complete_var=COMPLETE, shell=chosen))
