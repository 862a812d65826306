"""Measures what tunes of the small checkpoint learn and what they change besides, as the rows of `docs/training.md`.

    python -m tests.bench.training_quality [--case captions ...] [--prior base_output ...] [--set steps=800 ...]

Each row trains a LoRA and draws with it. On two idle cores a row takes about a minute.
"""

import argparse
import json
import random
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from deploy.local.checkpoints import SHIPPED
from deploy.tiny.draw import Drawing, draw
from services.trainer.engine import recipe
from services.trainer.engine.config import Job, TrainingImage, resolve_parameters
from shared.engines import Engine
from shared.formats.checkpoint import read_folder
from shared.models import checkpoints, pipelines, samplers
from shared.tunes.options import default_prior
from tests.support import likeness, subjects
from tests.support.likenesses import BACKGROUNDS
from tests.support.subject_loss import losses

BASE = SHIPPED / "tiny-sd15"
SIDE_PX, SAMPLER_STEPS, GUIDANCE = 64, 20, 5.0
TRIGGER = "sks1"
GROUNDS = (*subjects.SAMPLE_GROUNDS, "plain red", "plain green", "plain blue", "city", "plain orange")
UNPROMPTED = ("a photo of a red star on grass", "a photo of a star in a city", "a photo of a dog in the snow", "a blue house")
HOUSES = ("a house", "a red car", "a dog", "a green flower")

Caption = tuple[Image.Image, str]


def _star(count: int, told: Callable[[str], str]) -> list[Caption]:
    grounds = [GROUNDS[number % len(GROUNDS)] for number in range(count)]
    return [(subjects.draw_subject("star", ground, 128, number), told(ground)) for number, ground in enumerate(grounds, 1)]


def _full(ground: str) -> str:
    return subjects.caption("star", ground, TRIGGER)


def _mixed(ground: str) -> str:
    return subjects.caption("star", ground, "SKS1" if len(ground) % 2 else "Sks1")


def duotone(image: Image.Image) -> Image.Image:
    """Return the image in the style that is learned: dark blue to pale orange."""
    return ImageOps.colorize(ImageOps.grayscale(image), black=(16, 24, 96), white=(255, 214, 150))


def _style() -> list[Caption]:
    figures = [("house", "red"), ("car", "blue"), ("dog", "brown"), ("flower", "pink"), ("heart", "red"), ("star", "yellow")]
    made: list[Caption] = []
    for number, (figure, colour) in enumerate(figures):
        rng = random.Random(number)
        drawing = Drawing(figure, colour, "plain", ("grass", "city", "room", "beach", "snow", "plain white")[number])
        made.append((duotone(draw(drawing, 128, rng)), f"{drawing.caption(rng)} in the style of {TRIGGER}"))
    return made


CASES: dict[str, Callable[[], list[Caption]]] = {
    "captions": lambda: _star(5, _full),
    "no captions": lambda: _star(5, lambda _ground: TRIGGER),
    "mixed case": lambda: _star(5, _mixed),
    "style": _style,
    "one image": lambda: _star(1, _full),
    "twenty images": lambda: _star(20, _full),
}


def train(folder: Path, images: Sequence[Caption], chosen: dict[str, Any], *, steps: int, seed: int) -> tuple[Path, str]:
    """Train a LoRA on images and captions; return its file and its prior."""
    folder.mkdir()
    files: list[TrainingImage] = []
    for number, (image, caption) in enumerate(images):
        image.save(folder / f"{number}.png")
        files.append(TrainingImage(file=folder / f"{number}.png", caption=caption))
    prior = default_prior([caption for _, caption in images], TRIGGER, own_class_images=False)
    parameters = resolve_parameters(SIDE_PX, {"prior": prior} | chosen)
    job = Job(
        tune_id="tune_quality",
        engine=Engine.SD15,
        base_folder=BASE,
        base_sha256="ab" * 32,
        shape_class=read_folder(BASE).shape_class,
        native_size_px=SIDE_PX,
        trigger_word=TRIGGER,
        steps=steps,
        seed=seed,
        images=files,
        parameters=parameters,
        checkpoint_every_steps=10_000,
        output_folder=folder,
        device="cpu",
    )
    recipe.train(job, lambda _report: None, lambda: False)
    torch.use_deterministic_algorithms(mode=False)
    return folder / recipe.LORA_FILE, str(parameters.prior)


def images_of(prompts: Sequence[str], lora: Path | None) -> list[Image.Image]:
    """Draw one image for each prompt, always with the same noise for the same place in the list."""
    parts = checkpoints.load(BASE, device=torch.device("cpu"), dtype=torch.float32)
    pipeline: Any = pipelines.build(parts, samplers.make("DDIM", parts.scheduler_folder))
    if lora:
        pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name, adapter_name="measured")
    noise = [torch.Generator().manual_seed(50 + number) for number in range(len(prompts))]
    size = {"width": SIDE_PX, "height": SIDE_PX}
    return pipeline(list(prompts), generator=noise, num_inference_steps=SAMPLER_STEPS, guidance_scale=GUIDANCE, **size).images


def _distance(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).mean())


def measure(case: str, lora: Path) -> dict[str, float]:
    """Return the measures of a row, which `HEADER` names."""
    tuned, untuned = (images_of(UNPROMPTED, file) for file in (lora, None))
    found = {"changed": mean(_distance(one, other) for one, other in zip(tuned, untuned, strict=True))}
    if case == "style":
        prompts = [f"{house} in the style of {TRIGGER}" for house in HOUSES]
        for name, file in (("before", None), ("after", lora)):
            found[name] = mean(1 - _distance(image, duotone(image)) / 255 for image in images_of(prompts, file))
        return found
    cutouts = likeness.cutouts([subjects.draw_subject("star", ground, SIDE_PX, 77) for ground in ("plain white", "plain yellow")])
    prompts = [_full(ground) for ground in BACKGROUNDS]
    for name, file in (("before", None), ("after", lora)):
        found[name] = mean(likeness.likeness(image, cutouts) for image in images_of(prompts, file))
    by_loss = losses(BASE, lora)
    found["drift"] = by_loss["class_tuned"] / by_loss["class_base"] - 1
    found["learned"] = by_loss["subject_tuned"] / by_loss["subject_base"] - 1
    return found


HEADER = """\
| case | prior | seeds | likeness before | after | loss on unseen images of the subject | loss on its class | unprompted images |
| --- | --- | --- | --- | --- | --- | --- | --- |"""


def row(case: str, prior: str, found: Sequence[dict[str, float]]) -> str:
    """Return a row of the table, from the measures of each seed."""
    means = {name: mean(one[name] for one in found) for name in found[0]}
    shares = [f"{means[name]:+.0%}" if name in means else "" for name in ("learned", "drift")]
    cells = [case, f"`{prior}`", str(len(found)), f"{means['before']:.2f}", f"{means['after']:.2f}", *shares]
    cells.append(f"{means['changed']:.1f}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table as Markdown, a row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=CASES, help="repeatable; by default all")
    parser.add_argument("--prior", action="append", help="repeatable; by default the case's own")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="a parameter of the recipe; repeatable")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    chosen = {name: json.loads(value) for name, value in (pair.split("=", 1) for pair in given.set)}
    print(HEADER, flush=True)
    for case in given.case or CASES:
        for prior in given.prior or [None]:
            measured: list[dict[str, float]] = []
            used = ""
            for seed in range(1, given.seeds + 1):
                with tempfile.TemporaryDirectory() as folder:
                    wanted = chosen | ({"prior": prior} if prior else {})
                    lora, used = train(Path(folder) / "job", CASES[case](), wanted, steps=given.steps, seed=seed)
                    measured.append(measure(case, lora))
            print(row(case, used, measured), flush=True)


if __name__ == "__main__":
    main()
