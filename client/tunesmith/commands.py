"""The client's commands: tunes, images, and the demo."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from tunesmith.local import connect, fail
from tunesmith.models import Tune

console = Console()
tune = typer.Typer(help="Fine-tunes.", no_args_is_help=True)
_IMAGES = {".png", ".jpg", ".jpeg"}


@tune.command("create")
def create_tune(
    name: Annotated[str, typer.Argument(help="The tune's name, and then its LoRA's.")],
    images: Annotated[list[Path], typer.Argument(exists=True, help="Images, or folders of them.")],
    trigger_word: Annotated[str, typer.Option(help="The word that will stand for the subject, e.g. sks1.")],
    base: Annotated[str, typer.Option(help="The checkpoint to tune.")] = "octoai:default-sd15",
    steps: Annotated[int, typer.Option(help="Training steps.")] = 500,
    seed: Annotated[int | None, typer.Option(help="Makes a tune repeatable.")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the LoRA.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Watch it to its end.")] = False,
) -> None:
    """Upload images and start a tune on them. A text file beside an image holds its caption."""
    files = [file for path in images for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    files = [file for file in files if file.suffix.lower() in _IMAGES]
    if not files:
        fail(f"images: no {', '.join(sorted(_IMAGES))} among what was given")
    options = {"rank": rank, "learning_rate": learning_rate, "batch_size": batch_size}
    with connect() as client:
        pairs = []
        for file in files:
            text = file.with_suffix(".txt")
            stem = re.sub(r"[^a-zA-Z0-9_-]+", "-", file.stem)
            pairs.append((client.upload(file, name=f"{name}-{stem}").id, text.read_text().strip() if text.exists() else None))
        made = client.create_tune(
            name,
            base=base,
            files=pairs,
            trigger_word=trigger_word,
            steps=steps,
            seed=seed,
            **{key: value for key, value in options.items() if value is not None},
        )
    console.print(f"{made.id}  {made.name}  {made.status}", highlight=False)
    for warning in made.warnings:
        console.print(f"warning: {warning['message']}", highlight=False)
    if wait:
        watch_tune(made.id)


@tune.command("list")
def list_tunes() -> None:
    """List the tunes, newest first."""
    table = Table("id", "name", "status", "step", "lora", box=None)
    with connect() as client:
        for item in client.tunes():
            step = f"{item.progress.step}/{item.progress.steps}" if item.progress else ""
            table.add_row(item.id, item.name, item.status, step, " ".join(item.output_lora_ids))
    console.print(table)


@tune.command("get")
def get_tune(tune_id: str) -> None:
    """Show a tune."""
    with connect() as client:
        console.print_json(client.tune(tune_id).model_dump_json())


@tune.command("watch")
def watch_tune(tune_id: str) -> None:
    """Show a tune's progress until it ends; exits with 1 unless it succeeds."""
    with connect() as client, Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}")) as bar:
        task = bar.add_task(tune_id, total=None, note="")
        last: Tune | None = None
        for last in client.watch(tune_id):
            if last.progress:
                note = f"step {last.progress.step}" + (f", loss {last.progress.loss:.3f}" if last.progress.loss else "")
                bar.update(task, total=last.progress.steps, completed=last.progress.step, note=note)
    assert last is not None  # noqa: S101 - watching yields at least once
    console.print(f"{last.id}  {last.name}  {last.status} {last.status_details}", highlight=False)
    if last.status != "succeeded":
        raise typer.Exit(1)


@tune.command("cancel")
def cancel_tune(tune_id: str) -> None:
    """Ask a tune to stop."""
    with connect() as client:
        console.print(client.cancel_tune(tune_id).status)


@tune.command("delete")
def delete_tune(tune_id: str) -> None:
    """Delete a tune; its images and its LoRA stay."""
    with connect() as client:
        client.delete_tune(tune_id)


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
