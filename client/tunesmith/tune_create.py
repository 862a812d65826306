"""`tunesmith tune create` and `clone`: start tunes."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from tunesmith import image_files
from tunesmith.client import Client, Tune, TunesmithApiError
from tunesmith.failures import exit_code
from tunesmith.fields import fields
from tunesmith.folders import TrainingFolder, read_folders
from tunesmith.image_files import shown
from tunesmith.local import Json, connect, fail, note, say, show_json
from tunesmith.models import WhatIf
from tunesmith.synchronous import training
from tunesmith.tune_watch import watch
from tunesmith.uploads import FileBars

_GIB = 2**30
NameOrId = Annotated[str, typer.Argument(help="Name or id of the tune.")]


def create_tune(
    name: Annotated[str, typer.Argument(help="Name of the tune, and of the LoRA that it makes.")],
    images: Annotated[list[Path], typer.Argument(exists=True, help="Image files, or folders of images.")],
    trigger_word: Annotated[
        str | None,
        typer.Option(help="Word that will stand for the subject in prompts, for example sks1. A folder `10_sks1 dog` names it."),
    ] = None,
    base: Annotated[
        str, typer.Option(help="Checkpoint to start from: NAME, or octoai:NAME for a public one.")
    ] = "octoai:default-sd15",
    steps: Annotated[int | None, typer.Option(help="Number of training steps. Default: 100 per image, at least 400.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the training. The same seed and settings give the same LoRA.")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of the LoRA: a higher rank learns more detail.")] = None,
    alpha: Annotated[float | None, typer.Option(help="The LoRA's weights are scaled by alpha / rank.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate of the schedule.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw, or adafactor, which needs less memory.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images in each step; steps times this are the views of all images.")
    ] = None,
    resolution: Annotated[int | None, typer.Option(help="Size of the training images, in pixels.")] = None,
    train_text_encoder: Annotated[bool | None, typer.Option(help="Also train the text encoders.")] = None,
    text_encoder_learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate of the text encoders.")] = None,
    prior: Annotated[
        str | None, typer.Option(help="What keeps the class as it was: base_output (the default), class_images or none.")
    ] = None,
    clip_skip: Annotated[int | None, typer.Option(help="Read captions from the n-th last layer of the text encoders.")] = None,
    validation_prompt: Annotated[
        list[str] | None, typer.Option(help="Prompt to draw at each checkpoint. Repeatable, four at most.")
    ] = None,
    checkpoint_every_steps: Annotated[int | None, typer.Option(help="Number of steps between checkpoints.")] = None,
    resize_images: Annotated[
        bool, typer.Option("--resize-images", help="First scale images down to a shorter edge of 512 px (SDXL: 1024).")
    ] = False,
    webhook: Annotated[str | None, typer.Option(help="Address that gets a request at each event of the tune.")] = None,
    webhook_event: Annotated[
        list[str] | None, typer.Option(help="Send only these events to the webhook: start, progress or completed. Repeatable.")
    ] = None,
    whatif: Annotated[
        bool, typer.Option("--whatif", help="Upload the images, print advice and the estimated cost, and start nothing.")
    ] = False,
    description: Annotated[str | None, typer.Option(help="A note for people.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Id of the dataset that the tune is started from, for reference.")] = None,
    continue_on_rejection: Annotated[
        bool, typer.Option("--continue-on-rejection", help="Train without images that the server rejects after the start.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Show the progress until the tune has ended.")] = False,
    json: Json = False,
) -> None:
    """Upload images and start a tune on them.

    A text file with the name of an image (star.txt or star.caption beside star.png) holds its caption. A folder named like
    `10_sks1 dog`, or one that holds such folders, gives the trigger word, and captions for images without a text file. Options
    that you leave out get the server's defaults.
    """
    if not image_files.NAME.fullmatch(name) or len(name) > image_files.MAX_NAME:
        fail(f"NAME: {name!r} is not a name: use letters from a to z, digits, - and _, at most {image_files.MAX_NAME} of them")
    try:
        folder = read_folders(images)
        word = folder.trigger_word_or(trigger_word)
    except TunesmithApiError as error:
        fail(f"--trigger-word: {error}" if error.code == "no_trigger_word" else str(error))
    for text in folder.notes:
        note(text)
    chosen = {
        "rank": rank,
        "alpha": alpha,
        "learning_rate": learning_rate,
        "optimizer": optimizer,
        "batch_size": batch_size,
        "resolution": resolution,
        "train_text_encoder": train_text_encoder,
        "text_encoder_learning_rate": text_encoder_learning_rate,
        "prior": prior,
        "clip_skip": clip_skip,
        "validation_prompts": validation_prompt,
        "checkpoint_every_steps": checkpoint_every_steps,
        "resize_images": resize_images or None,
    }
    request: dict[str, Any] = {key: value for key, value in chosen.items() if value is not None}
    request |= {"base": base, "trigger_word": word, "steps": steps or folder.default_steps, "seed": seed}
    with connect() as client:
        request["files"] = _uploaded(client, name, folder)
        try:
            if whatif:
                _show_what_if(client.what_if(name, **request), request["files"], folder.images, json=json)
                return
            more: dict[str, Any] = {"webhook": webhook, "webhook_events_filter": webhook_event, "dataset_id": dataset}
            more |= {"description": description, "continue_on_rejection": continue_on_rejection or None}
            made = client.create_tune(name, **more, **request)
        except TunesmithApiError as error:
            fail(_with_files(str(error), folder.images), exit_code(error))
        _started(client, made, wait=wait, json=json)


def clone_tune(
    name_or_id: NameOrId,
    name: Annotated[str, typer.Argument(help="Name of the new tune.")],
    steps: Annotated[int | None, typer.Option(help="Number of training steps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the training.")] = None,
    base: Annotated[str | None, typer.Option(help="Checkpoint to start from.")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Another field of `details`, as FIELD=VALUE, for example rank=32. Repeatable."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show the progress until the tune has ended.")] = False,
    json: Json = False,
) -> None:
    """Start a tune on the images, captions and settings of another one, with changes."""
    changes = {"steps": steps, "seed": seed, "base_checkpoint": {"checkpoint_id": base} if base else None}
    with connect() as client:
        old = client.find_tune(name_or_id)
        given = {key: value for key, value in changes.items() if value is not None} | fields("--set", change)
        _started(client, client.clone_tune(old, name, **given), wait=wait, json=json)


def _uploaded(client: Client, name: str, folder: TrainingFolder) -> list[tuple[str, str | None]]:
    try:
        with FileBars(folder.images) as bars:
            return training.upload_images(client, name, folder, on_note=note, on_bytes=bars.show)
    except TunesmithApiError as error:
        fail(str(error), exit_code(error))


def _started(client: Client, made: Tune, *, wait: bool, json: bool) -> None:
    for warning in made.warnings:
        note(warning["message"], "warning")
    if not json:
        say(f"{made.id}  {made.name}  {made.status}")
    elif not wait:
        show_json(made)
    if wait:
        watch(client, made.id, json=json)


def _with_files(message: str, files: list[Path]) -> str:
    """Return an error of the server with the names of the files that it counts."""
    return re.sub(r"\bfiles\.(\d+)\b", lambda found: f"{found[0]} ({shown(files[int(found[1])])})", message)


def _show_what_if(found: WhatIf, pairs: list[tuple[str, str | None]], files: list[Path], *, json: bool) -> None:
    if json:
        show_json(found)
        return
    names = {file_id: shown(file) for (file_id, _), file in zip(pairs, files, strict=True)}
    for lint in found.lint:
        about = names.get(lint["file_id"], "the tune")
        say(f"{about}: {lint['message']} ({lint['code']})")
    cost = found.estimate
    say(f"time: about {cost.seconds:.0f} s ({cost.basis})")
    say(f"memory: about {cost.memory_bytes / _GIB:.1f} GiB")
