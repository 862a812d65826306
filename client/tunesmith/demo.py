"""The main job, start to end: upload, tune, generate without and with the tune, and one picture that shows it.

It runs from a clone and is not in the wheel: the picture needs Pillow, and the tune needs the checkpoint that a local stack has.
"""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tunesmith import sheet
from tunesmith.client import Client, TunesmithApiError
from tunesmith.local import connect

SAMPLES = Path(__file__).parent / "samples"
BASE = "octoai:tiny-sd15"
TRIGGER_WORD = "sks1"
STEPS = 200
SUBJECT = f"{TRIGGER_WORD} star"
PROMPTS = {
    f"a photo of a {SUBJECT} in the snow": 3,
    f"a photo of a {SUBJECT} at night": 12,
    f"a photo of a {SUBJECT} on a pink background": 3,
}
"""Each prompt with its seed. No training image shows these backgrounds: the tune is to learn the subject, not its images.

The seeds were chosen for stars that differ clearly without the tune.
"""
_SEED = 11
_GENERATE: dict[str, Any] = {
    "sampler": "DDIM",
    "steps": 25,
    "cfg_scale": 5.0,
    "width": 512,
    "height": 512,
    "image_encoding": "png",
}


def demo(
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="The stack to run on.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the contact sheet.")] = Path(),
) -> None:
    """Run the main job from upload to images and write one picture that shows it."""
    console = Console()
    with connect(data_dir) as client:
        path = run(client, out, console)
        console.print(
            f"\nthe console, signed in (once, within 10 minutes): {client.sign_in_link()}", highlight=False, soft_wrap=True
        )
    console.print(f"the picture: {path.resolve()}", highlight=False, soft_wrap=True)


def run(client: Client, folder: Path, console: Console) -> Path:
    """Run the demo and return the path of the contact sheet, which is written into `folder`."""
    captions: dict[str, str] = json.loads((SAMPLES / "captions.json").read_text())
    name = _fresh_name(client)
    began = time.monotonic()
    columns = (TextColumn("{task.description:<44}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"uploading {len(captions)} images", total=len(captions), note="")
        files: list[tuple[str, str | None]] = []
        for file, caption in captions.items():
            asset = client.upload(SAMPLES / file, name=f"{name}-{Path(file).stem}")
            files.append((asset.id, caption))
            progress.advance(task)
        task = progress.add_task(f"tuning {BASE} as {name}", total=STEPS, note="waiting")
        made = client.create_tune(
            name,
            base=BASE,
            files=files,
            trigger_word=TRIGGER_WORD,
            steps=STEPS,
            seed=_SEED,
        )
        tune = made
        for tune in client.watch(made.id):
            if tune.progress:
                loss = f"loss {tune.progress.loss:.3f}" if tune.progress.loss else tune.status
                progress.update(task, completed=tune.progress.step, note=loss)
        if tune.status != "succeeded":
            raise TunesmithApiError(0, tune.status, f"the tune {tune.id} {tune.status}: {tune.status_details}")
        progress.update(task, completed=STEPS)
        task = progress.add_task("generating without and with the tune", total=2 * len(PROMPTS), note="")
        images: dict[bool, list[bytes]] = {False: [], True: []}
        for tuned in (False, True):
            for prompt, seed in PROMPTS.items():
                options: dict[str, Any] = {**_GENERATE, "checkpoint": BASE, "seed": seed}
                if tuned:
                    options["loras"] = {name: 1.0}
                images[tuned].append(client.generate(prompt, **options).images[0].data)
                progress.advance(task)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    sheet.write(
        path,
        title=f"Five images teach it “{SUBJECT}”",
        subtitle=f"{STEPS} steps on {BASE}, a checkpoint of 64 x 64 px for trials. Both rows have the same prompts and seeds.",
        training=[(SAMPLES / file).read_bytes() for file in captions],
        prompts=list(PROMPTS),
        without=sheet.Row("Without the tune", "the base draws any star", images[False]),
        tuned=sheet.Row("With the tune", "it draws this star, on backgrounds that no training image shows", images[True]),
    )
    console.print(f"\ndone in {time.monotonic() - began:.0f} s")
    console.print("\nNext:")
    console.print('  eval "$(.venv/bin/tunesmith env)"', highlight=False)
    line = f'  .venv/bin/tunesmith generate "a photo of a {SUBJECT} on a beach" --lora {name}=0.9'
    # Unbroken, so that it can be copied.
    console.print(line, highlight=False, soft_wrap=True)
    console.print("  make down          stops the stack", highlight=False)
    return path


def _fresh_name(client: Client) -> str:
    """Return a name that no tune and no asset has, nor an asset's name begins with: an earlier demo may have left images."""
    taken = {tune.name for tune in client.tunes()} | {asset.name for asset in client.assets()}
    number = 1
    while any(name == f"demo-star-{number}" or name.startswith(f"demo-star-{number}-") for name in taken):
        number += 1
    return f"demo-star-{number}"
