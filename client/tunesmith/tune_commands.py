"""`tunesmith tune`: start, watch, list, clone and cancel tunes."""

import json as json_format
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tunesmith import tune_create
from tunesmith.image_files import shown
from tunesmith.local import Json, connect, say, show_json, wide
from tunesmith.tune_create import NameOrId
from tunesmith.tune_watch import watch

tune = typer.Typer(help="Start, watch, list, clone and cancel tunes.", no_args_is_help=True, add_completion=False)
tune.command("create")(tune_create.create_tune)
tune.command("clone")(tune_create.clone_tune)


@tune.command("list")
def list_tunes(
    name: Annotated[str | None, typer.Option(help="List only the tune of this name.")] = None,
    trigger_word: Annotated[str | None, typer.Option(help="List only tunes with this trigger word.")] = None,
    words: Annotated[
        str | None, typer.Option("--search", help="A part of the name, the description or the trigger word.")
    ] = None,
    status: Annotated[list[str] | None, typer.Option(help="List only tunes with this status. Repeatable.")] = None,
    sort: Annotated[str | None, typer.Option(help="newest, oldest or name.")] = None,
    json: Json = False,
) -> None:
    """List your tunes, newest first."""
    filters = {"name": name, "trigger_words": trigger_word, "q": words, "status": status, "sort": sort}
    with connect() as client:
        found = client.tunes(**{key: value for key, value in filters.items() if value})
    if json:
        show_json(found)
        return
    table = Table("id", "name", "status", "step", "lora", box=None)
    for item in found:
        step = f"{item.progress.step}/{item.progress.steps}" if item.progress else ""
        table.add_row(item.id, item.name, item.status, step, " ".join(item.output_lora_ids))
    wide().print(table)


@tune.command("show")
@tune.command("get", hidden=True)
def show_tune(name_or_id: NameOrId, json: Json = True) -> None:  # noqa: ARG001 - every command takes it
    """Show a tune as JSON."""
    with connect() as client:
        show_json(client.find_tune(name_or_id))


@tune.command("watch")
def watch_tune(name_or_id: NameOrId, json: Json = False) -> None:
    """Show a tune's progress and its loss until it has ended. Exits with 6 unless it succeeded."""
    with connect() as client:
        watch(client, client.find_tune(name_or_id).id, json=json)


@tune.command("events")
def tune_events(
    name_or_id: NameOrId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more events until the tune has ended.")] = False,
    after: Annotated[int, typer.Option(help="Print only events with a larger sequence number.")] = 0,
    json: Json = True,  # noqa: ARG001 - every command takes it
) -> None:
    """Print the events of a tune, one JSON object on each line."""
    with connect() as client:
        tune_id = client.find_tune(name_or_id).id
        for event in client.follow_tune(tune_id, after) if follow else client.tune_events(tune_id, after):
            say(json_format.dumps(event))


@tune.command("losses")
def tune_losses(name_or_id: NameOrId, json: Json = False) -> None:
    """Print the loss of each step: the step and the loss on each line."""
    with connect() as client:
        found = client.losses(client.find_tune(name_or_id).id)
    if json:
        show_json(found)
        return
    for step, loss in enumerate(found.losses, found.first_step):
        if loss is not None:
            say(f"{step}\t{loss}")


@tune.command("samples")
def tune_samples(
    name_or_id: NameOrId,
    out: Annotated[Path | None, typer.Option(help="Folder to write the images to. Default: print their addresses.")] = None,
    json: Json = False,
) -> None:
    """List the images that were generated for the validation prompts, or write them into a folder."""
    with connect() as client:
        found = client.find_tune(name_or_id)
        samples = client.samples(found.id)
        paths: list[Path] = []
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            for sample in samples:
                name = f"{found.name}-step{sample.step:05}-{sample.number}"
                paths.append(client.download_sample(sample, out, name))
    if json:
        show_json(samples)
        return
    for number, sample in enumerate(samples):
        say(shown(paths[number]) if paths else f"{sample.step}  {sample.prompt}  {sample.url}")


@tune.command("cancel")
def cancel_tune(name_or_id: NameOrId, json: Json = False) -> None:
    """Ask a tune to stop. Prints its status."""
    with connect() as client:
        found = client.cancel_tune(client.find_tune(name_or_id).id)
    if json:
        show_json(found)
    else:
        say(found.status)


@tune.command("delete")
def delete_tune(name_or_id: NameOrId, json: Json = False) -> None:
    """Delete a tune. Its images and its LoRA stay."""
    with connect() as client:
        found = client.find_tune(name_or_id)
        client.delete_tune(found.id)
    if json:
        show_json({"deleted": [found.id]})


@tune.command("webhook-secret")
def webhook_secret(
    rotate: Annotated[bool, typer.Option("--rotate", help="Replace it first. Calls carry both signatures for a day.")] = False,
    json: Json = False,
) -> None:
    """Print the secret that signs the account's webhooks."""
    with connect() as client:
        secret = client.rotate_webhook_secret() if rotate else client.webhook_secret()
    if json:
        show_json({"secret": secret})
    else:
        say(secret)


@tune.command("deliveries")
def deliveries(name_or_id: NameOrId, json: Json = False) -> None:
    """List the calls of a tune's webhook, oldest first."""
    with connect() as client:
        found = client.webhook_deliveries(client.find_tune(name_or_id).id)
    if json:
        show_json(found)
        return
    table = Table("id", "type", "state", "attempts", "last error", box=None)
    for item in found:
        table.add_row(item.id, item.type, item.state, str(item.attempts), item.last_error or "")
    wide().print(table)
