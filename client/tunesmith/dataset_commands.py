"""`tunesmith dataset`: images, captions and settings that are kept for a tune."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tunesmith.client import TunesmithApiError
from tunesmith.failures import exit_code
from tunesmith.folders import read_folders
from tunesmith.image_files import shown
from tunesmith.local import Json, connect, fail, note, say, show_json, wide
from tunesmith.synchronous import training
from tunesmith.uploads import FileBars

dataset = typer.Typer(help="Keep, list and delete the images and captions of tunes.", no_args_is_help=True, add_completion=False)
Id = Annotated[str, typer.Argument(help="Id of the dataset.")]


@dataset.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Name of the dataset.")],
    images: Annotated[list[Path], typer.Argument(exists=True, help="Image files, or folders of images.")],
    trigger_word: Annotated[str | None, typer.Option(help="Word that will stand for the subject in prompts.")] = None,
    subject_class: Annotated[str | None, typer.Option(help="What the subject is, for example dog.")] = None,
    json: Json = False,
) -> None:
    """Upload images and keep them with their captions. The console's New tune goes on from there."""
    try:
        folder = read_folders(images)
        for text in folder.notes:
            note(text)
        with connect() as client:
            with FileBars(folder.images) as bars:
                pairs = training.upload_images(client, name, folder, on_note=note, on_bytes=bars.show)
            files = [
                {"file_id": file_id, "file_name": shown(Path(image.name))[:200], "caption": caption or ""}
                for (file_id, caption), image in zip(pairs, folder.images, strict=True)
            ]
            word, subject = trigger_word or folder.trigger_word or "", subject_class or folder.subject or ""
            made = client.create_dataset(name, trigger_word=word, subject_class=subject, files=files)
    except TunesmithApiError as error:
        fail(str(error), exit_code(error))
    if json:
        show_json(made)
    else:
        say(f"{made.id}  {made.name}  {len(made.files)} images")


@dataset.command("list")
def list_(json: Json = False) -> None:
    """List your datasets, the last changed first."""
    with connect() as client:
        found = client.datasets()
    if json:
        show_json(found)
        return
    table = Table("id", "name", "trigger word", "images", "changed", box=None)
    for item in found:
        table.add_row(item.id, item.name, item.trigger_word, str(len(item.files)), f"{item.updated_at:%Y-%m-%d %H:%M}")
    wide().print(table)


@dataset.command("show")
def show(dataset_id: Id, json: Json = True) -> None:  # noqa: ARG001 - every command takes it
    """Show a dataset as JSON."""
    with connect() as client:
        show_json(client.dataset(dataset_id))


@dataset.command("delete")
def delete(dataset_id: Id, json: Json = False) -> None:
    """Delete a dataset. Its images and the tunes that were started from it stay."""
    with connect() as client:
        client.delete_dataset(dataset_id)
    if json:
        show_json({"deleted": [dataset_id]})
