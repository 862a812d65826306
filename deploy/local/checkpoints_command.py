"""`tunesmith checkpoints`: build the small ones, bring the full-size ones, and choose what stands for the default ones."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from deploy.local import state
from deploy.local.paths import StackPaths, cache_dir, default_data_dir

T = TypeVar("T")

app = typer.Typer(help="Build, bring and choose base checkpoints.", no_args_is_help=True)
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="The stack's folder; without it, the default stack's.")]

Scratch = Annotated[Path, typer.Option(help="Where unfinished work is kept.")]


@app.command("build-tiny")
def build_tiny(
    name: Annotated[
        Literal["tiny-sd15", "tiny-sdxl", "tiny-canny-sd15", "tiny-canny-sdxl"],
        typer.Argument(help="Which one; a ControlNet is trained for the shipped checkpoint."),
    ],
    target: Annotated[Path, typer.Argument(help="Folder to write it to; TARGET.safetensors is the same as one file.")],
    scratch: Scratch = Path("tiny-build"),
) -> None:
    """Draw the picture set and train a small checkpoint on it: about three hours on two cores for both, and resumable."""
    from deploy.local.checkpoints import SHIPPED  # noqa: PLC0415 - see the next line
    from deploy.tiny import single_file  # noqa: PLC0415 - imports torch

    build = _build(scratch)
    if name.startswith("tiny-canny-"):
        build.canny(SHIPPED / name.replace("canny-", ""), target)
        return
    (build.sd15 if name == "tiny-sd15" else build.sdxl)(target)
    single_file.export_folder(target, target.with_name(f"{target.name}.safetensors"))


@app.command("score-tiny")
def score_tiny(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The folder that holds the small checkpoints.")],
    scratch: Scratch = Path("tiny-build"),
) -> None:
    """Write scores.json: how often small checkpoints draw what a prompt says, by a classifier that is trained where missing."""
    _build(scratch).scores(folder)


@app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="A checkpoint's folder in diffusers' layout.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
) -> None:
    """Write a checkpoint's folder as one file, in the layout of Stable Diffusion's own releases and in half precision."""
    from deploy.tiny import single_file  # noqa: PLC0415 - imports torch

    _or_exit(lambda: single_file.export_folder(folder, target))
    print(target)


@app.command("pull")
def pull(
    name: Annotated[Literal["sd15", "sdxl"], typer.Argument(help="Stable Diffusion 1.5 (4.3 GB) or SDXL 1.0 (6.9 GB).")],
    keep: Annotated[bool, typer.Option(help="Keep the downloaded file once the store has it.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Download a published checkpoint, check it and register it as octoai:NAME; go on where an earlier call was cut off.

    TUNESMITH_HF_ENDPOINT names a mirror of the hub, HF_TOKEN the token for repositories that want one.
    """
    from deploy.local import hub  # noqa: PLC0415 - the other commands do not need them
    from services.upload import public_assets  # noqa: PLC0415

    pin = hub.PINS[name]
    settings = _settings(data_dir)
    columns = (TextColumn(pin.path), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(name, total=pin.size_bytes)
        folder = cache_dir() / "checkpoints"
        path = _or_exit(lambda: hub.download(pin, folder, lambda here, _total: progress.update(task, completed=here)))

    async def register() -> str:
        from shared.blobs.store import Blobs  # noqa: PLC0415
        from shared.database.sessions import Database  # noqa: PLC0415

        database, blobs = Database.from_settings(settings, application_name="checkpoints"), Blobs.from_settings(settings)
        try:
            description = f"{pin.repository} at {pin.commit[:12]}, {pin.path}; licence: {pin.licence}"
            return await public_assets.register_checkpoint(database, blobs, path, name=name, description=description)
        finally:
            await blobs.close()
            await database.close()

    asset_id = _or_exit(lambda: asyncio.run(register()))
    if not keep:
        path.unlink()
    print(
        f"octoai:{name} is {asset_id}; `tunesmith checkpoints use {name} default-{name}` lets it stand for octoai:default-{name}"
    )


@app.command("use")
def use(
    name: Annotated[str, typer.Argument(help="A public checkpoint's name, e.g. sd15 or tiny-sd15.")],
    alias: Annotated[Literal["default-sd15", "default-sdxl"], typer.Argument(help="What it is to stand for.")],
    data_dir: DataDir = None,
) -> None:
    """Let a public checkpoint stand for a default one; running tunes keep the bytes that they started from."""
    from deploy.local import checkpoints  # noqa: PLC0415 - the other commands do not need it

    _with_database(data_dir, lambda database: checkpoints.use(database, name, alias))
    print(f"octoai:{alias} is now octoai:{name}")


@app.command("list")
def list_(data_dir: DataDir = None) -> None:
    """List the public checkpoints, and which of them stands for a default one."""
    from services.upload import public_assets  # noqa: PLC0415 - the other commands do not need it

    table = Table("name", "stands for", "engine", "native px", "shape class", "size", "sha256", box=None)
    for asset in _with_database(data_dir, public_assets.checkpoints):
        data = asset.data
        stands_for = f"octoai:{data['alias_of']}" if data.get("alias_of") else ""
        engine = str(data.get("engine", "")).removeprefix("image/")
        native, shape = str(data.get("native_size_px", "")), str(data.get("shape_class", ""))
        size = f"{asset.size_bytes / 1e6:,.1f} MB"
        table.add_row(f"octoai:{asset.name}", stands_for, engine, native, shape, size, (asset.sha256 or "")[:16])
    Console().print(table)


def _with_database(data_dir: Path | None, work: Callable[..., Awaitable[T]]) -> T:
    from shared.database.sessions import Database  # noqa: PLC0415 - the client alone does not need it

    settings = _settings(data_dir)

    async def inside() -> T:
        database = Database.from_settings(settings, application_name="checkpoints")
        try:
            return await work(database)
        finally:
            await database.close()

    return _or_exit(lambda: asyncio.run(inside()))


def _build(scratch: Path):  # noqa: ANN202 - the class is imported here
    """Return the building of the small checkpoints, with the tokenizer of the shipped ones."""
    from deploy.local.checkpoints import SHIPPED  # noqa: PLC0415 - imports the database
    from deploy.tiny.build import Build  # noqa: PLC0415 - imports torch

    return Build(SHIPPED / "tiny-sd15" / "tokenizer", scratch, lambda line: print(time.strftime("%H:%M:%S"), line, flush=True))


def _settings(data_dir: Path | None):  # noqa: ANN202 - the class is imported here
    """Return where database and store are: the environment's, else the local stack's."""
    from shared.settings import ServiceSettings  # noqa: PLC0415 - the client alone does not need it

    running = state.read(StackPaths((data_dir or default_data_dir()).resolve()))
    # A stack that was named goes before the environment, which goes before the default stack.
    given = {
        name.removeprefix("TUNESMITH_").lower(): value
        for name, value in (running.env if running else {}).items()
        if data_dir is not None or name not in os.environ
    }
    try:
        return ServiceSettings(**{name: value for name, value in given.items() if name in ServiceSettings.model_fields})  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        missing = ", ".join(f"TUNESMITH_{str(fault['loc'][0]).upper()}" for fault in error.errors())
        typer.echo(f"no local stack runs (start it with `tunesmith up`), and the environment does not say {missing}", err=True)
        raise typer.Exit(1) from error


def _or_exit(work: Callable[[], T]) -> T:
    from shared.errors import TunesmithError  # noqa: PLC0415 - the client alone does not need it

    try:
        return work()
    except TunesmithError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
