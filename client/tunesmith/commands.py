"""The client's command for images."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tunesmith.local import connect, fail

console = Console()


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
