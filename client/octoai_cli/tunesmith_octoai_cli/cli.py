"""The `octoai` command: assets and login, with the options of OctoAI's own command."""

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx
import typer
from rich.console import Console
from rich.table import Table

from tunesmith.client import Client, TunesmithApiError
from tunesmith.image_files import shown
from tunesmith.models import Asset
from tunesmith_octoai_cli import login as kept

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="OctoAI's command, for a Tunesmith server."
)
asset = typer.Typer(no_args_is_help=True, help="Upload, show, list and delete assets.")
app.add_typer(asset, name="asset")
console = Console()
_IMAGES = {".png": "png", ".jpg": "jpg", ".jpeg": "jpeg"}

File = Annotated[Path | None, typer.Option("--upload-from-file", exists=True, dir_okay=False, help="File to upload.")]
Words = Annotated[
    list[str] | None,
    typer.Option(
        "--trigger-word", "--trigger-words", "-w", help="Word that activates a LoRA or a textual inversion. Repeatable."
    ),
]
Name = Annotated[str | None, typer.Option("--name", "-n", help="Name of the asset.")]
Id = Annotated[str | None, typer.Option("--id", help="Id of the asset.")]
NameOrId = Annotated[str | None, typer.Argument(help="Name or id of the asset. octoai:NAME for a public one.")]


@app.command()
def login(
    endpoint: Annotated[str, typer.Option(prompt="Server, for example http://127.0.0.1:8080", help="Address of the server.")],
    token: Annotated[str, typer.Option(prompt="API key", hide_input=True, help="An API key of your account.")],
) -> None:
    """Ask for the server and an API key, check that they work, and save them in ~/.octoai/config.yaml."""
    with Client(endpoint, token) as client:
        client.count_assets()
    kept.keep(endpoint, token)
    console.print(f"logged in to {endpoint}", highlight=False)


@asset.command()
def create(
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the asset, unique in the account.")],
    type_: Annotated[str, typer.Option("--type", "-t", help="file (an image), lora, checkpoint, vae or textual_inversion.")],
    upload_from_file: File = None,
    upload_from_url: Annotated[str | None, typer.Option("--upload-from-url", help="Address to download from.")] = None,
    engine: Annotated[str | None, typer.Option("--engine", "-e", help="For example image/stable-diffusion-v1-5.")] = None,
    format_: Annotated[str | None, typer.Option("--format", "-f", help="safetensors, or png or jpg for an image.")] = None,
    data_type: Annotated[str | None, typer.Option("--data-type", help="fp16 or fp32. Default: found in the file.")] = None,
    description: Annotated[str, typer.Option("--description", "-d", help="A note for people.")] = "",
    trigger_word: Words = None,
    transfer_api: Annotated[str, typer.Option(help="Accepted and ignored: uploads use presigned URLs.")] = "sts",  # noqa: ARG001
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the server has checked the asset.")] = False,
) -> None:
    """Upload a file into the library, or let the server download one."""
    if (upload_from_file is None) == (upload_from_url is None):
        _fail("--upload-from-file and --upload-from-url: give exactly one of them")
    data: dict[str, Any] = {"engine": engine, "data_type": data_type, "trigger_words": trigger_word}
    if type_ == "file":
        data["file_format"] = format_ or _IMAGES.get(upload_from_file.suffix.lower() if upload_from_file else "", "unknown")
    else:
        data["file_format"] = format_ or "safetensors"
        if engine is None:
            _fail(f"--engine: required for a {type_}, for example image/stable-diffusion-v1-5")
    data = {key: value for key, value in data.items() if value is not None}
    with kept.connect() as client:
        if upload_from_file is not None:
            made = client.upload(upload_from_file, name=name, asset_type=type_, data=data, description=description)
        else:
            assert upload_from_url is not None  # noqa: S101 - the check above guarantees it
            made = client.import_asset(upload_from_url, name=name, asset_type=type_, data=data, description=description)
        _show(client.wait_for_asset(made) if wait else made)


@asset.command()
def get(key: NameOrId = None, name: Name = None, id_: Id = None) -> None:
    """Show an asset."""
    with kept.connect() as client:
        _show(client.asset(_one(key, name, id_)))


@asset.command()
def delete(key: NameOrId = None, name: Name = None, id_: Id = None) -> None:
    """Delete an asset."""
    with kept.connect() as client:
        found = client.asset(_one(key, name, id_))
        client.delete_asset(found.id)
    console.print(f"deleted {found.name} ({found.id})", highlight=False)


@asset.command("list")
def list_(
    name: Name = None,
    type_: Annotated[list[str] | None, typer.Option("--type", "-t", help="List only this type. Repeatable.")] = None,
    engine: Annotated[list[str] | None, typer.Option("--engine", "-e", help="List only this engine. Repeatable.")] = None,
    owner: Annotated[str | None, typer.Option("--owner", help="octoai lists the public assets.")] = None,
    public: Annotated[bool, typer.Option("--public", "--is-public", help="List only public assets.")] = False,
) -> None:
    """List the library, newest first."""
    filters = {"name": name, "asset_type": type_, "engine": engine, "owner": owner, "is_public": public or None}
    table = Table("Name", "ID", "Type", "Status", "Size", "Created", box=None)
    with kept.connect() as client:
        for item in client.assets(**{key: value for key, value in filters.items() if value}):
            row = (item.name, item.id, item.asset_type, item.status, f"{item.size_bytes:,}", f"{item.created_at:%Y-%m-%d %H:%M}")
            table.add_row(*row)
    # A script that reads the table through a pipe gets whole rows: rich would take a pipe to be 80 columns wide.
    (console if console.is_terminal else Console(width=240)).print(table)


def main() -> None:
    """Run the command. An error of the server, an unavailable server or an unreadable file is one line on standard error."""
    try:
        app()
    except TunesmithApiError as error:
        _fail(str(error))
    except OSError as error:
        if not isinstance(error.filename, str):
            raise
        _fail(f"{shown(Path(error.filename))}: {error.strerror}")
    except httpx.TransportError as error:
        _fail(f"{error.request.url} cannot be reached ({error}): check the address, and that its server runs")


def _one(*keys: str | None) -> str:
    given = [key for key in keys if key]
    if len(given) != 1:
        _fail("NAME_OR_ID, --name and --id: give exactly one of them")
    return given[0]


def _show(found: Asset) -> None:
    console.print_json(found.model_dump_json())


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)
