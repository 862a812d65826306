"""The client's commands for assets, images, and the demo."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tunesmith.local import connect, fail

console = Console()
asset = typer.Typer(help="The library: images, LoRAs and checkpoints.", no_args_is_help=True)


@asset.command("upload")
def upload(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Files to upload.")],
    type_: Annotated[str, typer.Option("--type", help="file, lora, checkpoint, vae or textual_inversion.")] = "file",
    engine: Annotated[str | None, typer.Option(help="For models, e.g. image/stable-diffusion-v1-5.")] = None,
    name: Annotated[str | None, typer.Option(help="For a single file; otherwise names are made from the files'.")] = None,
) -> None:
    """Upload files and wait until they are checked."""
    if name and len(files) > 1:
        fail("--name: goes with a single file")
    with connect() as client:
        for file in files:
            ready = client.wait_for_asset(client.upload(file, name=name, asset_type=type_, engine=engine))
            console.print(f"{ready.id}  {ready.name}  {ready.status}", highlight=False)


@asset.command("list")
def list_assets(
    type_: Annotated[str | None, typer.Option("--type", help="Only this type.")] = None,
    public: Annotated[bool, typer.Option("--public", help="The platform's public ones.")] = False,
) -> None:
    """List the library, newest first."""
    filters = ({"asset_type": type_} if type_ else {}) | ({"owner": "octoai"} if public else {})
    table = Table("id", "name", "type", "status", "size", box=None)
    with connect() as client:
        for item in client.assets(**filters):
            table.add_row(item.id, item.name, item.asset_type, item.status, f"{item.size_bytes:,}")
    console.print(table)


@asset.command("get")
def get_asset(name_or_id: str) -> None:
    """Show an asset by id, name or octoai:NAME."""
    with connect() as client:
        console.print_json(client.asset(name_or_id).model_dump_json())


@asset.command("delete")
def delete_asset(name_or_id: str) -> None:
    """Delete an asset; tunes that use it keep their copy."""
    with connect() as client:
        client.delete_asset(client.asset(name_or_id).id)


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    lora: Annotated[list[str] | None, typer.Option(help="NAME=WEIGHT; may be given several times.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Name of a checkpoint; octoai:NAME for a public one.")] = None,
    engine: Annotated[str, typer.Option(help="sd or sdxl.")] = "sd",
    negative_prompt: Annotated[str | None, typer.Option(help="What not to draw.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes images repeatable.")] = None,
    num_images: Annotated[int, typer.Option(help="How many.")] = 1,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels.")] = None,
    steps: Annotated[int, typer.Option(help="Sampling steps.")] = 30,
    cfg_scale: Annotated[float, typer.Option(help="Guidance scale.")] = 5.0,
    sampler: Annotated[str, typer.Option(help="DDIM, K_EULER, DPM_PLUS_PLUS_2M_KARRAS, ...")] = "DDIM",
    out: Annotated[Path, typer.Option(help="Folder for the images.")] = Path(),
) -> None:
    """Generate images."""
    loras: dict[str, float] = {}
    for item in lora or []:
        name, _, weight = item.rpartition("=")
        try:
            loras[name or weight] = float(weight) if name else 1.0
        except ValueError:
            fail(f"--lora: {item!r} is not NAME=WEIGHT")
    options = {"num_images": num_images, "steps": steps, "cfg_scale": cfg_scale, "sampler": sampler, "image_encoding": "png"}
    options |= {
        k: v for k, v in {"seed": seed, "checkpoint": checkpoint, "negative_prompt": negative_prompt}.items() if v is not None
    }
    if size:
        width, _, height = size.partition("x")
        if not (width.isdigit() and height.isdigit()):
            fail(f"--size: {size!r} is not WIDTHxHEIGHT")
        options |= {"width": int(width), "height": int(height)}
    if loras:
        options["loras"] = loras
    out.mkdir(parents=True, exist_ok=True)
    with connect() as client:
        made = client.generate(prompt, engine=engine, **options)
    for image in made.images:
        path = out / f"{re.sub(r'[^a-z0-9]+', '-', prompt.lower())[:40].strip('-')}-{image.seed}.png"
        path.write_bytes(image.data)
        console.print(str(path), highlight=False)
    if made.notice:
        console.print(f"note: {made.notice}", style="dim", highlight=False)


def demo(
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="The stack to run on.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the contact sheet.")] = Path(),
) -> None:
    """Run the main job from upload to images and write one picture that shows it."""
    from tunesmith import demo as job  # noqa: PLC0415 - needs Pillow, which the client alone does not

    with connect(data_dir) as client:
        path = job.run(client, out, console)
        console.print(f"\nthe stack: {client.url}", highlight=False)
    console.print(f"the picture: {path.resolve()}", highlight=False, soft_wrap=True)
