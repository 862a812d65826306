"""`tunesmith checkpoints`: build the small ones, and choose what stands for the default ones."""

import asyncio
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from deploy.local import checkpoints, state
from deploy.local.paths import StackPaths, default_data_dir

app = typer.Typer(help="Build and choose base checkpoints.", no_args_is_help=True)
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="The stack's folder; without it, the default stack's.")]


@app.command("build-tiny")
def build_tiny(
    what: Annotated[Literal["tiny-sd15", "tiny-sdxl", "scores"], typer.Argument(help="A checkpoint, or the scores of both.")],
    target: Annotated[Path, typer.Argument(help="Folder to write the checkpoint to; for scores, the one that holds both.")],
    scratch: Annotated[Path, typer.Option(help="Where unfinished work is kept.")] = Path("tiny-build"),
) -> None:
    """Draw the picture set and train a small checkpoint on it: about two hours on two cores for both, and resumable."""
    from services.trainer.tiny.build import Build  # noqa: PLC0415 - imports torch

    build = Build(
        checkpoints.SHIPPED / "tiny-sd15" / "tokenizer", scratch, lambda line: print(time.strftime("%H:%M:%S"), line, flush=True)
    )
    {"tiny-sd15": build.sd15, "tiny-sdxl": build.sdxl, "scores": build.scores}[what](target)


@app.command("use")
def use(
    name: Annotated[str, typer.Argument(help="A public checkpoint's name, e.g. tiny-sd15.")],
    alias: Annotated[str, typer.Argument(help="default-sd15 or default-sdxl.")],
    data_dir: DataDir = None,
) -> None:
    """Let a public checkpoint stand for a default one; running tunes keep the bytes that they started from."""
    from services.upload import public_assets  # noqa: PLC0415 - the client alone does not need it
    from shared.db import Database  # noqa: PLC0415

    running = state.read(StackPaths((data_dir or default_data_dir()).resolve()))
    if running is None:
        typer.echo("no local stack runs: start it with `tunesmith up`", err=True)
        raise typer.Exit(1)

    async def switch(url: str) -> None:
        database = Database(url)
        await public_assets.switch_alias(database, name=alias, of=name)
        await database.close()

    asyncio.run(switch(running.env["TUNESMITH_DATABASE_URL"]))
    print(f"octoai:{alias} is now octoai:{name}")
