"""`tunesmith checkpoints`: build the small checkpoints, download published ones, and choose the default ones."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from deploy.local import checkpoints, hub, state
from deploy.local.commands.options import DataDir, exit_on_error, fail, stack_paths
from deploy.local.paths import cache_dir
from services.upload import public_assets
from shared.blobs.store import Blobs
from shared.database.sessions import Database
from shared.settings import ServiceSettings

if TYPE_CHECKING:
    from deploy.tiny.build import Build

T = TypeVar("T")

app = typer.Typer(help="Download, list, choose, export and build base checkpoints.", no_args_is_help=True, add_completion=False)
Scratch = Annotated[Path, typer.Option(help="Folder for unfinished work. A later call continues from it.")]


@app.command("pull")
def pull(
    name: Annotated[Literal["sd15", "sdxl"], typer.Argument(help="sd15: Stable Diffusion 1.5, 4.3 GB. sdxl: SDXL 1.0, 6.9 GB.")],
    keep: Annotated[bool, typer.Option("--keep", help="Keep the downloaded file after it is in the store.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Download a published checkpoint, verify it and add it to the store as octoai:NAME.

    A download that was interrupted continues at the next call. Set TUNESMITH_HF_ENDPOINT to download from a mirror of the
    Hugging Face hub, and HF_TOKEN if the repository asks for a token.
    """
    pin = hub.PINS[name]
    settings = _settings(data_dir)
    columns = (TextColumn(pin.path), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress, exit_on_error():
        task = progress.add_task(name, total=pin.size_bytes)
        path = hub.download(pin, cache_dir() / "checkpoints", lambda here: progress.update(task, completed=here))

    async def register(database: Database) -> str:
        blobs = Blobs.from_settings(settings)
        try:
            description = f"{pin.repository} at {pin.commit[:12]}, {pin.path}; licence: {pin.licence}"
            return await public_assets.register_checkpoint(database, blobs, path, name=name, description=description)
        finally:
            await blobs.close()

    asset_id = _with_database(settings, register)
    if not keep:
        path.unlink()
    print(f"octoai:{name} is ready ({asset_id})")
    print(f"To make it the default: tunesmith checkpoints use {name} default-{name}")


@app.command("list")
def list_(data_dir: DataDir = None) -> None:
    """List the public checkpoints. `stands for` names the checkpoint whose weights a default one has."""
    table = Table("name", "stands for", "engine", "native px", "shape class", "size", "sha256", box=None)
    for asset in _with_database(_settings(data_dir), public_assets.checkpoints):
        data = asset.data
        stands_for = f"octoai:{data['alias_of']}" if data.get("alias_of") else ""
        engine = str(data.get("engine", "")).removeprefix("image/")
        native, shape = str(data.get("native_size_px", "")), str(data.get("shape_class", ""))
        size = f"{asset.size_bytes / 1e6:,.1f} MB"
        table.add_row(f"octoai:{asset.name}", stands_for, engine, native, shape, size, (asset.sha256 or "")[:16])
    Console().print(table)


@app.command("use")
def use(
    name: Annotated[str, typer.Argument(help="Name of a public checkpoint, for example sd15 or tiny-sd15.")],
    alias: Annotated[Literal["default-sd15", "default-sdxl"], typer.Argument(help="The default checkpoint to replace.")],
    data_dir: DataDir = None,
) -> None:
    """Make a public checkpoint the default one of its engine. Running tunes keep the weights that they started from."""
    _with_database(_settings(data_dir), lambda database: checkpoints.use(database, name, alias))
    print(f"octoai:{alias} is now octoai:{name}")


@app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of a checkpoint in diffusers' layout.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
) -> None:
    """Write a checkpoint's folder as one file, in the layout of Stable Diffusion's own releases and in half precision."""
    from deploy.tiny import single_file  # noqa: PLC0415 - imports torch

    with exit_on_error():
        single_file.export_folder(folder, target)
    print(target)


@app.command("build-tiny")
def build_tiny(
    name: Annotated[
        Literal["tiny-sd15", "tiny-sdxl", "tiny-canny-sd15", "tiny-canny-sdxl"],
        typer.Argument(help="What to build. A ControlNet (canny) is trained for the shipped checkpoint."),
    ],
    target: Annotated[Path, typer.Argument(help="Folder to write. A checkpoint is also written as TARGET.safetensors.")],
    scratch: Scratch = Path("tiny-build"),
) -> None:
    """Train a small checkpoint from nothing: draw its training images, then train each part.

    It takes about three hours on two cores for tiny-sd15 and tiny-sdxl together, and ten minutes for a ControlNet. A build that
    was interrupted continues at the next call.
    """
    from deploy.tiny import single_file  # noqa: PLC0415 - imports torch

    build = _build(scratch)
    if name.startswith("tiny-canny-"):
        build.canny(checkpoints.SHIPPED / name.replace("canny-", ""), target)
        return
    (build.sd15 if name == "tiny-sd15" else build.sdxl)(target)
    single_file.export_folder(target, target.with_name(f"{target.name}.safetensors"))


@app.command("score-tiny")
def score_tiny(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder that holds the small checkpoints.")],
    scratch: Scratch = Path("tiny-build"),
) -> None:
    """Measure how often the small checkpoints draw what a prompt says, and write scores.json.

    A classifier looks at the images. It is trained first if the folder has none.
    """
    _build(scratch).scores(folder)


def _with_database(settings: ServiceSettings, work: Callable[[Database], Awaitable[T]]) -> T:
    async def inside() -> T:
        database = Database.from_settings(settings, application_name="checkpoints")
        try:
            return await work(database)
        finally:
            await database.close()

    with exit_on_error():
        return asyncio.run(inside())


def _build(scratch: Path) -> "Build":
    """Return the build of the small checkpoints, with the tokenizer of the shipped ones."""
    from deploy.tiny.build import Build  # noqa: PLC0415 - imports torch

    tokenizer = checkpoints.SHIPPED / "tiny-sd15" / "tokenizer"
    return Build(tokenizer, scratch, lambda line: print(time.strftime("%H:%M:%S"), line, flush=True))


def _settings(data_dir: Path | None) -> ServiceSettings:
    """Return the addresses of database and store: the environment's, or the local stack's.

    A stack that --data-dir names goes before the environment; the environment goes before the default stack.
    """
    running = state.read(stack_paths(data_dir))
    given = {
        name.removeprefix("TUNESMITH_").lower(): value
        for name, value in (running.env if running else {}).items()
        if data_dir is not None or name not in os.environ
    }
    try:
        return ServiceSettings(**{name: value for name, value in given.items() if name in ServiceSettings.model_fields})  # pyright: ignore[reportArgumentType] - pydantic converts strings
    except ValidationError as error:
        missing = ", ".join(f"TUNESMITH_{str(fault['loc'][0]).upper()}" for fault in error.errors())
        fail(f"no local stack is running: start one with `tunesmith up`, or set {missing}")
