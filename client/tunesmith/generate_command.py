"""`tunesmith generate`: draw images and write them as files."""

import itertools
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from tunesmith.image_files import shown
from tunesmith.local import connect, fail, say

_PROMPT_LETTERS = 40
"""How much of the prompt the name of an image's file begins with."""


def generate(
    prompt: Annotated[str, typer.Argument(help="What the images show.")],
    lora: Annotated[list[str] | None, typer.Option(help="LoRA to apply, as NAME=WEIGHT. Repeatable.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Checkpoint: NAME, or octoai:NAME for a public one. Default: the engine's default.")
    ] = None,
    engine: Annotated[str, typer.Option(help="sd (Stable Diffusion 1.5) or sdxl.")] = "sd",
    negative_prompt: Annotated[str | None, typer.Option(help="What the images do not show.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed and options give the same images. Default: random.")] = None,
    num_images: Annotated[int, typer.Option(help="How many images to draw.")] = 1,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels. Default: 512x512 (sdxl: 1024x1024).")] = None,
    steps: Annotated[int, typer.Option(help="Number of sampling steps.")] = 30,
    cfg_scale: Annotated[float, typer.Option(help="Guidance scale: higher values follow the prompt more closely.")] = 5.0,
    sampler: Annotated[str, typer.Option(help="Sampler: DDIM, K_EULER, DPM_PLUS_PLUS_2M_KARRAS, ...")] = "DDIM",
    out: Annotated[Path, typer.Option(help="Folder to write the images to. Files that it holds stay.")] = Path(),
) -> None:
    """Generate images. Prints the path of each file."""
    loras: dict[str, float] = {}
    for item in lora or []:
        name, _, weight = item.rpartition("=")
        try:
            loras[name or weight] = float(weight) if name else 1.0
        except ValueError:
            fail(f"--lora: {item!r} is not NAME=WEIGHT: give it for example as --lora my-lora=0.9")
    options: dict[str, Any] = {
        "num_images": num_images,
        "steps": steps,
        "cfg_scale": cfg_scale,
        "sampler": sampler,
        "image_encoding": "png",
    }
    options |= {
        k: v for k, v in {"seed": seed, "checkpoint": checkpoint, "negative_prompt": negative_prompt}.items() if v is not None
    }
    if size:
        width, _, height = size.partition("x")
        if not (width.isdigit() and height.isdigit()):
            fail(f"--size: {size!r} is not WIDTHxHEIGHT: give it for example as --size 512x512")
        options |= {"width": int(width), "height": int(height)}
    if loras:
        options["loras"] = loras
    out.mkdir(parents=True, exist_ok=True)
    with connect() as client:
        made = client.generate(prompt, engine=engine, **options)
    start = re.sub(r"[\W_]+", "-", prompt.lower())[:_PROMPT_LETTERS].strip("-") or "image"
    for image in made.images:
        say(shown(_write(out, f"{start}-{image.seed}", image.data)))
    if made.notice:
        say(f"note: {made.notice}", style="dim")


def _write(folder: Path, name: str, data: bytes) -> Path:
    """Write an image to a new file, and return its path. Names in use get a number."""
    for number in itertools.count(1):
        path = folder / (f"{name}.png" if number == 1 else f"{name}-{number}.png")
        try:
            # Fails if the file exists: another command may write into the folder at the same time.
            with path.open("xb") as file:
                file.write(data)
        except FileExistsError:
            continue
        return path
    raise AssertionError
