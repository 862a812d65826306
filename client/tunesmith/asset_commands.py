"""The client's commands for the library: images, LoRAs, checkpoints, VAEs and textual inversions."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tunesmith.client import Client
from tunesmith.local import connect, fail
from tunesmith.models import Asset

console = Console()
asset = typer.Typer(help="The library: images, LoRAs, checkpoints, VAEs and textual inversions.", no_args_is_help=True)
_WAIT_S = 3600.0
TypeOption = Annotated[str, typer.Option("--type", help="file, lora, checkpoint, vae or textual_inversion.")]
EngineOption = Annotated[str | None, typer.Option(help="For weights, e.g. image/stable-diffusion-v1-5.")]


@asset.command("create")
def create(
    file: Annotated[Path | None, typer.Argument(exists=True, dir_okay=False, help="The file to upload.")] = None,
    url: Annotated[str | None, typer.Option(help="Instead of a file: where the server fetches it.")] = None,
    hf_repo: Annotated[str | None, typer.Option(help="Instead of a file: owner/name of a model repository.")] = None,
    hf_token: Annotated[
        str | None, typer.Option(envvar="HF_TOKEN", help="Opens a gated repository; better given by the environment.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Unique in the account; by default made from the file's.")] = None,
    type_: TypeOption = "file",
    engine: EngineOption = None,
    data_type: Annotated[str | None, typer.Option(help="fp16 or fp32; intake finds out by itself.")] = None,
    trigger_word: Annotated[list[str] | None, typer.Option(help="For LoRAs and textual inversions; repeatable.")] = None,
    description: Annotated[str, typer.Option(help="For people.")] = "",
    public: Annotated[bool, typer.Option("--public", help="For every account; needs an admin key.")] = False,
    wait: Annotated[bool, typer.Option(help="Wait until the asset has been checked.")] = True,
) -> None:
    """Create an asset from a file, an address or a model repository."""
    if sum(source is not None for source in (file, url, hf_repo)) != 1:
        fail("give one of FILE, --url and --hf-repo")
    if file is None and name is None:
        fail("--name: goes with --url and --hf-repo")
    said = {"engine": engine, "data_type": data_type, "trigger_words": trigger_word}
    data: dict[str, Any] = {key: value for key, value in said.items() if value}
    with connect() as client:
        if file is not None:
            made = client.upload(
                file, name=name, asset_type=type_, engine=engine, data=data, description=description, is_public=public
            )
        else:
            made = client.import_asset(
                url,
                name=name or "",
                asset_type=type_,
                data=data,
                description=description,
                is_public=public,
                hf_repo=hf_repo,
                hf_token=hf_token if hf_repo else None,
            )
        _show_end(client, made, wait=wait)


@asset.command("upload")
def upload(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Files to upload.")],
    type_: TypeOption = "file",
    engine: EngineOption = None,
    name: Annotated[str | None, typer.Option(help="For a single file; otherwise names are made from the files'.")] = None,
) -> None:
    """Upload files and wait until they are checked."""
    if name and len(files) > 1:
        fail("--name: goes with a single file")
    with connect() as client:
        for file in files:
            _show_end(client, client.upload(file, name=name, asset_type=type_, engine=engine), wait=True)


@asset.command("list")
def list_assets(
    type_: Annotated[list[str] | None, typer.Option("--type", help="Only this type; repeatable.")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="Only weights for this engine; repeatable.")] = None,
    name: Annotated[str | None, typer.Option(help="Only the one of this name.")] = None,
    public: Annotated[bool, typer.Option("--public", help="The platform's public ones.")] = False,
) -> None:
    """List the library, newest first."""
    filters = {"asset_type": type_, "engine": engine, "name": name, "owner": "octoai" if public else None}
    table = Table("id", "name", "type", "status", "size", box=None)
    with connect() as client:
        for item in client.assets(**{key: value for key, value in filters.items() if value}):
            table.add_row(item.id, item.name, item.asset_type, item.status, f"{item.size_bytes:,}")
    console.print(table)


@asset.command("show")
@asset.command("get", hidden=True)
def show(name_or_id: str) -> None:
    """Show an asset by id, name or octoai:NAME."""
    with connect() as client:
        console.print_json(client.asset(name_or_id).model_dump_json())


@asset.command("delete")
def delete_asset(names_or_ids: Annotated[list[str], typer.Argument(help="Ids or names.")]) -> None:
    """Delete assets; tunes that use them keep their copy."""
    with connect() as client:
        for name_or_id in names_or_ids:
            client.delete_asset(client.asset(name_or_id).id)


def _show_end(client: Client, made: Asset, *, wait: bool) -> None:
    # An import may take as long as the server lets it.
    done = client.wait_for_asset(made, timeout_s=_WAIT_S) if wait else made
    console.print(f"{done.id}  {done.name}  {done.status}", highlight=False)
