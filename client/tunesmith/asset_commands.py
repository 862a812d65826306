"""`tunesmith asset`: the library of images, LoRAs, checkpoints, VAEs and textual inversions."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Table

from tunesmith import uploads
from tunesmith.client import Client, TunesmithApiError
from tunesmith.failures import exit_code
from tunesmith.image_files import shown
from tunesmith.local import Json, connect, fail, say, show_json, wide
from tunesmith.models import Asset

asset = typer.Typer(
    help="Upload, import, list, download and delete assets: images, LoRAs, checkpoints, VAEs, textual inversions.",
    no_args_is_help=True,
    add_completion=False,
)
_WAIT_S = 3600.0
TypeOption = Annotated[str, typer.Option("--type", help="file (an image), lora, checkpoint, vae or textual_inversion.")]
EngineOption = Annotated[str | None, typer.Option(help="Engine of the weights, for example image/stable-diffusion-v1-5.")]
Names = Annotated[list[str], typer.Argument(help="Ids or names of assets. octoai:NAME for a public asset.")]


@asset.command("create")
def create(
    file: Annotated[Path | None, typer.Argument(exists=True, dir_okay=False, help="The file to upload.")] = None,
    url: Annotated[str | None, typer.Option(help="Instead of FILE: an address that the server downloads from.")] = None,
    hf_repo: Annotated[str | None, typer.Option(help="Instead of FILE: a model repository on Hugging Face, OWNER/NAME.")] = None,
    hf_token: Annotated[
        str | None, typer.Option(envvar="HF_TOKEN", help="Token for a gated repository. Set the variable rather than the option.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name, unique in the account. Default: from the file's name.")] = None,
    type_: TypeOption = "file",
    engine: EngineOption = None,
    data_type: Annotated[str | None, typer.Option(help="fp16 or fp32. Default: found in the file.")] = None,
    trigger_word: Annotated[list[str] | None, typer.Option(help="Word that activates the weights. Repeatable.")] = None,
    description: Annotated[str, typer.Option(help="A note for people.")] = "",
    public: Annotated[bool, typer.Option("--public", help="Let every account use the asset. Needs an admin key.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until the server has checked the asset.")] = True,
    json: Json = False,
) -> None:
    """Create an asset from a file, or let the server download it from an address or a model repository."""
    if sum(source is not None for source in (file, url, hf_repo)) != 1:
        fail("FILE, --url and --hf-repo: give exactly one of them")
    if file is None and name is None:
        fail("--name: required with --url and --hf-repo")
    given = {"engine": engine, "data_type": data_type, "trigger_words": trigger_word}
    data: dict[str, Any] = {key: value for key, value in given.items() if value}
    more: dict[str, Any] = {"asset_type": type_, "data": data, "description": description, "is_public": public}
    with connect() as client:
        if file is not None:
            made = client.upload(file, name=name, engine=engine, **more)
        else:
            token = hf_token if hf_repo else None
            made = client.import_asset(url, name=name or "", hf_repo=hf_repo, hf_token=token, **more)
        _show_result(client, made, wait=wait, file=file, json=json)


@asset.command("upload")
def upload(
    paths: Annotated[list[str], typer.Argument(help="Files, folders, or patterns such as 'photos/**/*.png'.")],
    type_: TypeOption = "file",
    engine: EngineOption = None,
    name: Annotated[str | None, typer.Option(help="Name, for a single file. Default: from the file's name.")] = None,
    at_once: Annotated[int, typer.Option(min=1, max=16, help="How many files to send at a time.")] = 4,
    json: Json = False,
) -> None:
    """Upload files, and wait until the server has checked them.

    When it was interrupted, run it again: files that are uploaded are not sent again.
    """
    files = uploads.files_of(paths, type_)
    if name and len(files) > 1:
        fail(f"--name: goes with a single file, not with {len(files)}: leave it out to name each asset after its file")
    with connect() as client:
        done = uploads.upload_all(client, files, at_once, name=name, asset_type=type_, engine=engine)
    if json:
        show_json(done.assets)
    else:
        for made in done.assets:
            say(f"{made.id}  {made.name}  {made.status}")
    if done.errors:
        fail("\nerror: ".join(text for text, _ in done.errors), done.errors[0][1])


@asset.command("list")
def list_assets(
    type_: Annotated[list[str] | None, typer.Option("--type", help="List only this type. Repeatable.")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="List only weights for this engine. Repeatable.")] = None,
    name: Annotated[str | None, typer.Option(help="List only the asset of this name.")] = None,
    words: Annotated[str | None, typer.Option("--search", help="A part of the name, the description or a trigger word.")] = None,
    status: Annotated[list[str] | None, typer.Option(help="List only assets with this status. Repeatable.")] = None,
    sort: Annotated[str | None, typer.Option(help="newest, oldest, name or largest.")] = None,
    public: Annotated[bool, typer.Option("--public", help="List the public assets of the server instead of your own.")] = False,
    json: Json = False,
) -> None:
    """List the library, newest first."""
    filters: dict[str, Any] = {"asset_type": type_, "engine": engine, "name": name, "owner": "octoai" if public else None}
    filters |= {"q": words, "status": status, "sort": sort}
    with connect() as client:
        found = client.assets(**{key: value for key, value in filters.items() if value})
    if json:
        show_json(found)
        return
    table = Table("id", "name", "type", "status", "size", box=None)
    for item in found:
        table.add_row(item.id, item.name, item.asset_type, item.status, f"{item.size_bytes:,}")
    wide().print(table)


@asset.command("show")
@asset.command("get", hidden=True)
def show(
    name_or_id: Annotated[str, typer.Argument(help="Id or name. octoai:NAME for a public asset.")],
    json: Json = True,  # noqa: ARG001 - every command takes it
) -> None:
    """Show an asset as JSON."""
    with connect() as client:
        show_json(client.asset(name_or_id))


@asset.command("download")
def download(
    names_or_ids: Names,
    layout: Annotated[
        str | None,
        typer.Option("--format", help="For LoRAs: kohya (AUTOMATIC1111's web UI, ComfyUI, Forge, InvokeAI) or diffusers."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the files. A file of the same name is replaced.")] = Path(),
    json: Json = False,
) -> None:
    """Download the files of assets. Prints their paths. A download that was interrupted is continued."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    paths: list[Path] = []
    out.mkdir(parents=True, exist_ok=True)
    with connect() as client, Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        for name_or_id in names_or_ids:
            found = client.asset(name_or_id)
            task = progress.add_task(found.name, total=found.size_bytes)
            paths.append(client.download(found.id, out, layout=layout, on_bytes=partial(_show_read, progress, task)))
    if json:
        show_json({"files": [shown(path) for path in paths]})
    else:
        for path in paths:
            say(shown(path))


def _show_read(progress: Progress, task: TaskID, read: int) -> None:
    progress.update(task, completed=read)


@asset.command("delete")
def delete_asset(names_or_ids: Annotated[list[str], typer.Argument(help="Ids or names of assets.")], json: Json = False) -> None:
    """Delete assets. Tunes that use them keep their own copy."""
    deleted: list[str] = []
    with connect() as client:
        for name_or_id in names_or_ids:
            found = client.asset(name_or_id)
            client.delete_asset(found.id)
            deleted.append(found.id)
    if json:
        show_json({"deleted": deleted})


def _show_result(client: Client, made: Asset, *, wait: bool, json: bool, file: Path | None = None) -> None:
    try:
        # An import may take as long as the server allows, so the wait is long.
        done = client.wait_for_asset(made, timeout_s=_WAIT_S) if wait else made
    except TunesmithApiError as error:
        fail(f"{shown(file)}: {error}" if file else str(error), exit_code(error))
    if json:
        show_json(done)
    else:
        say(f"{done.id}  {done.name}  {done.status}")
