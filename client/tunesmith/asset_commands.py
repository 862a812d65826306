"""`tunesmith asset`: the library of images, LoRAs, checkpoints, VAEs and textual inversions."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tunesmith import image_files
from tunesmith.client import Client, TunesmithApiError
from tunesmith.image_files import shown
from tunesmith.local import connect, fail, say
from tunesmith.models import Asset

console = Console()
asset = typer.Typer(
    help="Upload, import, list and delete assets: images, LoRAs, checkpoints, VAEs, textual inversions.",
    no_args_is_help=True,
    add_completion=False,
)
_WAIT_S = 3600.0
TypeOption = Annotated[str, typer.Option("--type", help="file (an image), lora, checkpoint, vae or textual_inversion.")]
EngineOption = Annotated[str | None, typer.Option(help="Engine of the weights, for example image/stable-diffusion-v1-5.")]


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
) -> None:
    """Create an asset from a file, or let the server download it from an address or a model repository."""
    if sum(source is not None for source in (file, url, hf_repo)) != 1:
        fail("FILE, --url and --hf-repo: give exactly one of them")
    if file is None and name is None:
        fail("--name: required with --url and --hf-repo")
    given = {"engine": engine, "data_type": data_type, "trigger_words": trigger_word}
    data: dict[str, Any] = {key: value for key, value in given.items() if value}
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
        _show_result(client, made, wait=wait, file=file)


@asset.command("upload")
def upload(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Files to upload.")],
    type_: TypeOption = "file",
    engine: EngineOption = None,
    name: Annotated[str | None, typer.Option(help="Name, for a single file. Default: from the file's name.")] = None,
) -> None:
    """Upload files, and wait until the server has checked them."""
    if name and len(files) > 1:
        fail(f"--name: goes with a single file, not with {len(files)}: leave it out to name each asset after its file")
    with connect() as client:
        for file in files:
            made = (
                client.upload(file, name=name, asset_type=type_, engine=engine) if name else _named(client, file, type_, engine)
            )
            _show_result(client, made, wait=True, file=file)


@asset.command("list")
def list_assets(
    type_: Annotated[list[str] | None, typer.Option("--type", help="List only this type. Repeatable.")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="List only weights for this engine. Repeatable.")] = None,
    name: Annotated[str | None, typer.Option(help="List only the asset of this name.")] = None,
    public: Annotated[bool, typer.Option("--public", help="List the public assets of the server instead of your own.")] = False,
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
def show(name_or_id: Annotated[str, typer.Argument(help="Id or name. octoai:NAME for a public asset.")]) -> None:
    """Show an asset as JSON."""
    with connect() as client:
        console.print_json(client.asset(name_or_id).model_dump_json())


@asset.command("delete")
def delete_asset(names_or_ids: Annotated[list[str], typer.Argument(help="Ids or names of assets.")]) -> None:
    """Delete assets. Tunes that use them keep their own copy."""
    with connect() as client:
        for name_or_id in names_or_ids:
            client.delete_asset(client.asset(name_or_id).id)


def _named(client: Client, file: Path, type_: str, engine: str | None) -> Asset:
    """Upload a file under its own name, or under one with the hash of its content where another asset has that name."""
    try:
        return client.upload(file, asset_type=type_, engine=engine)
    except TunesmithApiError as error:
        if error.code != "name_taken":
            raise
    name = image_files.asset_name("", file, image_files.content_hash(file))
    same = [item for item in client.assets(name=name, asset_type=type_) if item.status in {"uploaded", "ready"}]
    if same:
        say(f"{shown(file)}: using {name}, which is already uploaded", style="dim")
        return same[0]
    say(f"note: {shown(file)}: another asset has the name {image_files.default_name(file)}, so this one is named {name}")
    return client.upload(file, name=name, asset_type=type_, engine=engine)


def _show_result(client: Client, made: Asset, *, wait: bool, file: Path | None = None) -> None:
    try:
        # An import may take as long as the server allows, so the wait is long.
        done = client.wait_for_asset(made, timeout_s=_WAIT_S) if wait else made
    except TunesmithApiError as error:
        fail(f"{shown(file)}: {error}" if file else str(error))
    say(f"{done.id}  {done.name}  {done.status}")
