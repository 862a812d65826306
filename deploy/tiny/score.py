"""Scores a small checkpoint: does it draw what a prompt says? A classifier, trained apart on the drawn pictures, looks.

The score of each shipped checkpoint is committed beside it, with the sha256 of its weights.
"""

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from deploy.tiny.draw import Picture, draw
from deploy.tiny.pictures import CLASSES, SIDE_PX, labels, pick, shown
from deploy.tiny.training import REPORT_EVERY, Report, descend, learning_rate, to_input
from shared.models import checkpoints, pipelines, samplers

CLASSIFIER_FILE, SCORES_FILE = "classifier.safetensors", "scores.json"
ASPECTS = ("figure", "colour", "texture", "ground")
_WIDTHS = (24, 48, 72, 96)
_PROMPT_SEED = "score"
"""The picture set's own seeds are numbers."""
_STEPS, _GUIDANCE, _PICTURES_AT_ONCE = 15, 5.0, 16


class Classifier(nn.Module):
    """A small convolutional network: pictures (n, 3, 64, 64) in [-1, 1] to logits, one tensor an aspect."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((3, *_WIDTHS), _WIDTHS, strict=False):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.Conv2d(_WIDTHS[-1], _WIDTHS[-1], 3, padding=1), nn.SiLU())
        self.heads = nn.ModuleList(nn.Linear(2 * _WIDTHS[-1], classes) for classes in CLASSES)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the logits of each aspect."""
        y = self.body(x)
        pooled = torch.cat([y.mean((2, 3)), y.amax((2, 3))], dim=1)
        return [head(pooled) for head in self.heads]


def train(pixels: torch.Tensor, classes: torch.Tensor, *, steps: int, report: Report) -> Classifier:
    """Train the classifier on uint8 pixels (n, 64, 64, 3) and labels (n, 4), blurred and disturbed as drawn pictures are."""
    torch.manual_seed(4)
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    generator = torch.Generator().manual_seed(4)
    for step in range(steps):
        rows = torch.randint(0, len(pixels), (64,), generator=generator)
        logits = model(_disturbed(to_input(pixels[rows]), generator))
        loss = torch.stack([functional.cross_entropy(one, classes[rows, i]) for i, one in enumerate(logits)]).sum()
        descend(optimizer, model.parameters(), loss, rate=learning_rate(step, steps, 3e-3))
        if step % REPORT_EVERY == 0:
            report(f"classifier {step}/{steps}: loss {loss.item():.3f}")
    return model.eval()


def _disturbed(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shrink some of a batch, as a soft outline is, move its colours a little and add smooth noise."""
    soft = functional.interpolate(functional.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
    share = torch.rand(len(x), 1, 1, 1, generator=generator)
    x = x + share * (soft - x)
    noise = torch.randn(len(x), 3, 16, 16, generator=generator)
    cast = 0.08 * torch.randn(len(x), 3, 1, 1, generator=generator)
    return x + cast + 0.1 * functional.interpolate(noise, scale_factor=4, mode="bilinear")


def save(model: Classifier, path: Path) -> None:
    """Write the classifier in half precision."""
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, path)


def load(path: Path) -> Classifier:
    """Read a classifier that `save` has written."""
    model = Classifier()
    model.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return model.eval()


def accuracy(model: Classifier, pictures: list[Image.Image], wanted: list[list[int]]) -> dict[str, float]:
    """Return for each aspect the share of pictures that show what is wanted (labels as the picture set has them)."""
    pixels = torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in pictures]))
    with torch.inference_mode():
        logits = model(to_input(pixels))
    told = torch.tensor(wanted)
    return {
        aspect: (one.argmax(1) == told[:, number]).float().mean().item()
        for number, (aspect, one) in enumerate(zip(ASPECTS, logits, strict=True))
    }


def held_out(count: int) -> list[Picture]:
    """Return pictures to ask for whose figure, colour, texture and ground never come together in the picture set."""
    rng, seen = random.Random(_PROMPT_SEED), shown()
    found: list[Picture] = []
    while len(found) < count:
        picture = pick(rng)
        if picture not in seen:
            found.append(picture)
    return found


def drawn(count: int) -> tuple[list[Image.Image], list[list[int]]]:
    """Draw held-out pictures as the set's own are drawn, and return them with their labels."""
    rng, pictures = random.Random(_PROMPT_SEED), held_out(count)
    return [draw(picture, SIDE_PX, rng) for picture in pictures], [labels(picture) for picture in pictures]


def digest(folder: Path) -> str:
    """Return the sha256 over a checkpoint's weights, in the order of their paths."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def measure(folder: Path, model: Classifier, count: int) -> dict[str, float]:
    """Let a checkpoint draw `count` held-out prompts, one seed each, and return the accuracy of each aspect."""
    parts = checkpoints.load(folder, device=torch.device("cpu"), dtype=torch.float32)
    pipeline: Any = pipelines.build(parts, samplers.make("DDIM", parts.scheduler_folder))
    rng, pictures = random.Random(_PROMPT_SEED), held_out(count)
    captions = [picture.caption(rng) for picture in pictures]
    made: list[Image.Image] = []
    for start in range(0, count, _PICTURES_AT_ONCE):
        part = captions[start : start + _PICTURES_AT_ONCE]
        generators = [torch.Generator().manual_seed(start + number) for number in range(len(part))]
        options = {"num_inference_steps": _STEPS, "guidance_scale": _GUIDANCE, "generator": generators}
        with torch.inference_mode():
            made += pipeline(part, negative_prompt=[""] * len(part), width=SIDE_PX, height=SIDE_PX, **options).images
    return accuracy(model, made, [labels(picture) for picture in pictures])


def write(folder: Path, *, prompts: int = 128) -> None:
    """Measure every checkpoint in the folder with the classifier there, and write `scores.json`, to be committed with them."""
    model = load(folder / CLASSIFIER_FILE)
    known = accuracy(model, *drawn(200))
    names = checkpoints_in(folder)
    found = {name: {"sha256": digest(folder / name), "accuracy": measure(folder / name, model, prompts)} for name in names}
    record = {"prompts": prompts, "classifier": known, "checkpoints": found}
    (folder / SCORES_FILE).write_text(json.dumps(record, indent=1) + "\n")


def checkpoints_in(folder: Path) -> list[str]:
    """Return the names of the checkpoints in a folder."""
    return sorted(path.parent.name for path in folder.glob("*/model_index.json"))
