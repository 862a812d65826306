"""`tunesmith tune`: start, watch, list and cancel tunes."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from tunesmith import captions, image_files, training_images
from tunesmith.client import Client, TunesmithApiError
from tunesmith.image_files import shown
from tunesmith.local import connect, fail, say
from tunesmith.models import Tune, WhatIf

console = Console()
tune = typer.Typer(help="Start, watch, list and cancel tunes.", no_args_is_help=True, add_completion=False)
_GIB = 2**30
NameOrId = Annotated[str, typer.Argument(help="Name or id of the tune.")]


@tune.command("create")
def create_tune(
    name: Annotated[str, typer.Argument(help="Name of the tune, and of the LoRA that it makes.")],
    images: Annotated[list[Path], typer.Argument(exists=True, help="Image files, or folders of images.")],
    trigger_word: Annotated[str, typer.Option(help="Word that will stand for the subject in prompts, for example sks1.")],
    base: Annotated[
        str, typer.Option(help="Checkpoint to start from: NAME, or octoai:NAME for a public one.")
    ] = "octoai:default-sd15",
    steps: Annotated[int, typer.Option(help="Number of training steps.")] = 500,
    seed: Annotated[int | None, typer.Option(help="Seed of the training. The same seed and settings give the same LoRA.")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the LoRA: a higher rank learns more detail.")] = None,
    alpha: Annotated[float | None, typer.Option(help="The LoRA's weights are scaled by alpha / rank.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate of the schedule.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw, or adafactor, which needs less memory.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in each step.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Size of the training images, in pixels.")] = None,
    train_text_encoder: Annotated[bool | None, typer.Option(help="Also train the text encoders.")] = None,
    text_encoder_learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate of the text encoders.")] = None,
    validation_prompt: Annotated[
        list[str] | None, typer.Option(help="Prompt to draw at each checkpoint. Repeatable, four at most.")
    ] = None,
    checkpoint_every_steps: Annotated[int | None, typer.Option(help="Number of steps between checkpoints.")] = None,
    resize_images: Annotated[
        bool, typer.Option("--resize-images", help="Keep training copies with a shorter edge of at most 512 px (SDXL: 1024).")
    ] = False,
    webhook: Annotated[str | None, typer.Option(help="Address that gets a request at each event of the tune.")] = None,
    webhook_event: Annotated[
        list[str] | None, typer.Option(help="Send only these events to the webhook: start, progress or completed. Repeatable.")
    ] = None,
    whatif: Annotated[
        bool, typer.Option("--whatif", help="Upload the images, print advice and the estimated cost, and start nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Show the progress until the tune has ended.")] = False,
) -> None:
    """Upload images and start a tune on them.

    A text file with the name of an image (star.txt or star.caption beside star.png) holds its caption. Options that you leave
    out get the server's defaults.
    """
    if not image_files.NAME.fullmatch(name) or len(name) > image_files.MAX_NAME:
        fail(f"NAME: {name!r} is not a name: use letters from a to z, digits, - and _, at most {image_files.MAX_NAME} of them")
    files, texts, notes = image_files.find(images)
    for note in (*notes, *captions.notes(files, texts)):
        say(f"note: {note}")
    if not files:
        fail("IMAGES: none of them is an image: give image files (.png, .jpg, .webp), or folders of such files")
    chosen = {
        "rank": rank,
        "alpha": alpha,
        "learning_rate": learning_rate,
        "optimizer": optimizer,
        "batch_size": batch_size,
        "resolution": resolution,
        "train_text_encoder": train_text_encoder,
        "text_encoder_learning_rate": text_encoder_learning_rate,
        "validation_prompts": validation_prompt,
        "checkpoint_every_steps": checkpoint_every_steps,
        "resize_images": resize_images or None,
    }
    request: dict[str, Any] = {key: value for key, value in chosen.items() if value is not None}
    request |= {"base": base, "trigger_word": trigger_word, "steps": steps, "seed": seed}
    with connect() as client:
        request["files"] = training_images.pairs(client, name, files)
        try:
            if whatif:
                names = {file_id: shown(file) for (file_id, _), file in zip(request["files"], files, strict=True)}
                _show_what_if(client.what_if(name, **request), names)
                return
            made = client.create_tune(name, webhook=webhook, webhook_events_filter=webhook_event, **request)
        except TunesmithApiError as error:
            fail(_with_files(str(error), files))
    say(f"{made.id}  {made.name}  {made.status}")
    for warning in made.warnings:
        say(f"warning: {warning['message']}")
    if wait:
        watch_tune(made.id)


def _with_files(message: str, files: list[Path]) -> str:
    """Return an error of the server with the names of the files that it counts."""
    return re.sub(r"\bfiles\.(\d+)\b", lambda found: f"{found[0]} ({shown(files[int(found[1])])})", message)


def _show_what_if(found: WhatIf, names: dict[str, str]) -> None:
    for lint in found.lint:
        about = names.get(lint["file_id"], "the tune")
        say(f"{about}: {lint['message']} ({lint['code']})")
    cost = found.estimate
    console.print(f"time: about {cost.seconds:.0f} s ({cost.basis})", highlight=False)
    console.print(f"memory: about {cost.memory_bytes / _GIB:.1f} GiB", highlight=False)


def _id(client: Client, name_or_id: str) -> str:
    """Return the id of the tune of this name. If there is none, the argument is taken to be an id."""
    named = client.tunes(name=name_or_id)
    return named[0].id if named else name_or_id


@tune.command("list")
def list_tunes(
    name: Annotated[str | None, typer.Option(help="List only the tune of this name.")] = None,
    trigger_word: Annotated[str | None, typer.Option(help="List only tunes with this trigger word.")] = None,
) -> None:
    """List your tunes, newest first."""
    filters = {key: value for key, value in {"name": name, "trigger_words": trigger_word}.items() if value is not None}
    table = Table("id", "name", "status", "step", "lora", box=None)
    with connect() as client:
        for item in client.tunes(**filters):
            step = f"{item.progress.step}/{item.progress.steps}" if item.progress else ""
            table.add_row(item.id, item.name, item.status, step, " ".join(item.output_lora_ids))
    console.print(table)


@tune.command("show")
@tune.command("get", hidden=True)
def show_tune(name_or_id: NameOrId) -> None:
    """Show a tune as JSON."""
    with connect() as client:
        console.print_json(client.tune(_id(client, name_or_id)).model_dump_json())


@tune.command("watch")
def watch_tune(name_or_id: NameOrId) -> None:
    """Show a tune's progress until it has ended. Exits with 1 unless it succeeded."""
    with connect() as client, Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}")) as bar:
        task = bar.add_task(name_or_id, total=None, note="")
        last: Tune | None = None
        for last in client.watch(_id(client, name_or_id)):
            if last.progress:
                note = f"step {last.progress.step}" + (f", loss {last.progress.loss:.3f}" if last.progress.loss else "")
                bar.update(task, total=last.progress.steps, completed=last.progress.step, note=note)
    assert last is not None  # noqa: S101 - watching yields at least once
    console.print(f"{last.id}  {last.name}  {last.status} {last.status_details}", highlight=False)
    if last.status != "succeeded":
        raise typer.Exit(1)


@tune.command("events")
def tune_events(
    name_or_id: NameOrId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more events until the tune has ended.")] = False,
    after: Annotated[int, typer.Option(help="Print only events with a larger sequence number.")] = 0,
) -> None:
    """Print the events of a tune, one JSON object on each line."""
    with connect() as client:
        tune_id = _id(client, name_or_id)
        for event in client.follow_tune(tune_id, after) if follow else client.tune_events(tune_id, after):
            console.print(json.dumps(event), highlight=False, soft_wrap=True, markup=False)


@tune.command("cancel")
def cancel_tune(name_or_id: NameOrId) -> None:
    """Ask a tune to stop. Prints its status."""
    with connect() as client:
        console.print(client.cancel_tune(_id(client, name_or_id)).status)


@tune.command("delete")
def delete_tune(name_or_id: NameOrId) -> None:
    """Delete a tune. Its images and its LoRA stay."""
    with connect() as client:
        client.delete_tune(_id(client, name_or_id))


@tune.command("webhook-secret")
def webhook_secret() -> None:
    """Print the secret that signs the account's webhooks."""
    with connect() as client:
        console.print(client.webhook_secret(), highlight=False)
