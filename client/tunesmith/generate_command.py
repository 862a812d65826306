"""`tunesmith generate`: draw images and write them as files."""

import base64
import itertools
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from tunesmith import contact_sheet, grid
from tunesmith.client import Client, GeneratedImage
from tunesmith.contact_sheet import Cell
from tunesmith.fields import fields
from tunesmith.image_files import shown
from tunesmith.local import Json, connect, fail, note, say, show_json

_PROMPT_LETTERS = 40
"""How much of the prompt the name of an image's file begins with."""
_COLUMNS = 4


def generate(
    prompt: Annotated[str, typer.Argument(help="What the images show.")],
    lora: Annotated[list[str] | None, typer.Option(help="LoRA to apply, as NAME=WEIGHT. Repeatable.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Checkpoint: NAME, or octoai:NAME for a public one. Default: the engine's default.")
    ] = None,
    engine: Annotated[str, typer.Option(help="sd (Stable Diffusion 1.5), sdxl, controlnet-sd15 or controlnet-sdxl.")] = "sd",
    negative_prompt: Annotated[str | None, typer.Option(help="What the images do not show.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed and options give the same images. Default: random.")] = None,
    num_images: Annotated[int, typer.Option(help="How many images to draw.")] = 1,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels. Default: 512x512 (sdxl: 1024x1024).")] = None,
    steps: Annotated[int, typer.Option(help="Number of sampling steps.")] = 30,
    cfg_scale: Annotated[float, typer.Option(help="Guidance scale: higher values follow the prompt more closely.")] = 5.0,
    sampler: Annotated[str, typer.Option(help="Sampler: DDIM, K_EULER, DPM_PLUS_PLUS_2M_KARRAS, ...")] = "DDIM",
    init_image: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Image to start from.")] = None,
    mask_image: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="White is painted, the rest stays.")
    ] = None,
    controlnet_image: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Image that the ControlNet follows.")
    ] = None,
    more: Annotated[
        list[str] | None, typer.Option("--set", help="Any other field of the API, as FIELD=VALUE: strength=0.6. Repeatable.")
    ] = None,
    grid_: Annotated[
        list[str] | None,
        typer.Option(
            "--grid",
            help="Draw one image for each value of a field, with the same seed: weight=0.4..1.2, steps=10,20,30, "
            "'cfg_scale=3..9 by 2'. Twice for rows and columns.",
        ),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Also write a contact sheet: .html, or .png with Pillow. Default for a grid: grid.html.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write the images to. Files that it holds stay.")] = Path(),
    json: Json = False,
) -> None:
    """Generate images. Prints the path of each file."""
    options: dict[str, Any] = {
        "num_images": num_images,
        "steps": steps,
        "cfg_scale": cfg_scale,
        "sampler": sampler,
        "image_encoding": "png",
        "seed": seed,
        "checkpoint": checkpoint,
        "negative_prompt": negative_prompt,
        "loras": _loras(lora) or None,
        "init_image": _encoded(init_image),
        "mask_image": _encoded(mask_image),
        "controlnet_image": _encoded(controlnet_image),
    }
    options = {name: value for name, value in options.items() if value is not None} | _size(size) | fields("--set", more)
    chosen = grid.axes(grid_ or [])
    if any(axis.field == "weight" for axis in chosen) and not lora:
        fail("--grid: weight needs a LoRA: give one with --lora NAME")
    out.mkdir(parents=True, exist_ok=True)
    sheet = sheet or (_free(out, "grid", ".html") if chosen else None)
    if sheet:
        contact_sheet.check(sheet)
    with connect() as client:
        written = _draw(client, prompt, engine, options, chosen, out)
    if sheet:
        columns = len(chosen[-1].values) * num_images if chosen else min(_COLUMNS, len(written))
        contact_sheet.write(sheet, prompt, [Cell(image.data, label) for _, image, label in written], max(1, columns))
    if json:
        files = [{"file": shown(path), "seed": image.seed, "label": label} for path, image, label in written]
        show_json({"images": files, "sheet": shown(sheet) if sheet else None})
        return
    for path, _, _ in written:
        say(shown(path))
    if sheet:
        say(shown(sheet))


def _draw(
    client: Client, prompt: str, engine: str, options: dict[str, Any], axes: list[grid.Axis], out: Path
) -> list[tuple[Path, GeneratedImage, str]]:
    """Generate the images of each cell and write them. Return each with its path and its label on a sheet."""
    written: list[tuple[Path, GeneratedImage, str]] = []
    for cell in grid.cells(axes):
        request = grid.applied({"prompt": prompt, "engine": engine, **options}, cell)
        made = client.generate(**request)
        if "seed" not in options and made.images:
            # The cells are compared with each other, so all have the seed that the server chose for the first.
            options = options | {"seed": made.images[0].seed}
        start = re.sub(r"[\W_]+", "-", request["prompt"].lower())[:_PROMPT_LETTERS].strip("-") or "image"
        label = ", ".join(f"{field} {value}" for field, value in cell.items())
        where = re.sub(r"[^\w.]+", "-", "".join(f"-{field}{value}" for field, value in cell.items()))[:_PROMPT_LETTERS]
        for image in made.images:
            path = _write(out, f"{start}{where}-{image.seed}", image.data)
            written.append((path, image, label or f"seed {image.seed}"))
        if made.notice:
            note(made.notice)
        if made.removed:
            note(f"the server's safety checker removed {made.removed} images")
    return written


def _loras(given: list[str] | None) -> dict[str, float]:
    loras: dict[str, float] = {}
    for item in given or []:
        name, _, weight = item.rpartition("=")
        try:
            loras[name or weight] = float(weight) if name else 1.0
        except ValueError:
            fail(f"--lora: {item!r} is not NAME=WEIGHT: give it for example as --lora my-lora=0.9")
    return loras


def _size(given: str | None) -> dict[str, int]:
    if not given:
        return {}
    width, _, height = given.partition("x")
    if not (width.isdigit() and height.isdigit()):
        fail(f"--size: {given!r} is not WIDTHxHEIGHT: give it for example as --size 512x512")
    return {"width": int(width), "height": int(height)}


def _encoded(image: Path | None) -> str | None:
    return base64.b64encode(image.read_bytes()).decode() if image else None


def _free(folder: Path, name: str, ending: str) -> Path:
    """Return a path that no file has."""
    names = (f"{name}{ending}" if number == 1 else f"{name}-{number}{ending}" for number in itertools.count(1))
    return next(path for path in (folder / name for name in names) if not path.exists())


def _write(folder: Path, name: str, data: bytes) -> Path:
    """Write an image to a new file, and return its path. Names in use get a number."""
    while True:
        path = _free(folder, name, ".png")
        try:
            # Fails if the file exists by now: another command may write into the folder at the same time.
            with path.open("xb") as file:
                file.write(data)
        except FileExistsError:
            continue
        return path
