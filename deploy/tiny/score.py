"""Scores a small checkpoint: how often does it draw what a prompt says? A classifier that is trained on the image set decides.

The scores of the shipped checkpoints are committed beside them, with the sha256 of their weights.
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

from deploy.tiny.draw import Drawing, draw
from deploy.tiny.images import CLASSES, SIDE_PX, labels, pick, shown
from deploy.tiny.training import REPORT_EVERY, Report, descend, learning_rate, to_input
from shared.models import checkpoints, pipelines, samplers

CLASSIFIER_FILE, SCORES_FILE = "classifier.safetensors", "scores.json"
ASPECTS = ("figure", "colour", "texture", "background")
_WIDTHS = (24, 48, 72, 96)
_PROMPT_SEED = "score"
"""A text, because the seeds of the image set are numbers."""
_STEPS, _GUIDANCE, _IMAGES_AT_ONCE = 15, 5.0, 16


class Classifier(nn.Module):
    """A small convolutional network from images (n, 3, 64, 64) in [-1, 1] to logits, one tensor for each aspect."""

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
    """Train the classifier on uint8 pixels (n, 64, 64, 3) and labels (n, 4).

    The pixels are blurred and disturbed, because generated images are.
    """
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
    """Return the batch, each image blurred by a random amount, with its colours shifted a little and smooth noise added."""
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
    """Read a classifier that `save` wrote."""
    model = Classifier()
    model.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return model.eval()


def accuracy(model: Classifier, images: list[Image.Image], wanted: list[list[int]]) -> dict[str, float]:
    """Return for each aspect the share of images that show what is wanted. `wanted` has the labels of each image."""
    pixels = torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images]))
    with torch.inference_mode():
        logits = model(to_input(pixels))
    labels_wanted = torch.tensor(wanted)
    return {
        aspect: (one.argmax(1) == labels_wanted[:, number]).float().mean().item()
        for number, (aspect, one) in enumerate(zip(ASPECTS, logits, strict=True))
    }


def held_out(count: int) -> list[Drawing]:
    """Return drawings whose combination of figure, colour, texture and background is not in the image set."""
    rng, seen = random.Random(_PROMPT_SEED), shown()
    found: list[Drawing] = []
    while len(found) < count:
        drawing = pick(rng)
        if drawing not in seen:
            found.append(drawing)
    return found


def drawn(count: int) -> tuple[list[Image.Image], list[list[int]]]:
    """Draw held-out images as those of the set are drawn. Return them with their labels."""
    rng, drawings = random.Random(_PROMPT_SEED), held_out(count)
    return [draw(drawing, SIDE_PX, rng) for drawing in drawings], [labels(drawing) for drawing in drawings]


def digest(folder: Path) -> str:
    """Return the sha256 of a checkpoint's weights, in the order of their paths."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def measure(folder: Path, model: Classifier, count: int) -> dict[str, float]:
    """Generate an image for each of `count` held-out prompts, and return the accuracy of each aspect."""
    parts = checkpoints.load(folder, device=torch.device("cpu"), dtype=torch.float32)
    pipeline: Any = pipelines.build(parts, samplers.make("DDIM", parts.scheduler_folder))
    rng, drawings = random.Random(_PROMPT_SEED), held_out(count)
    captions = [drawing.caption(rng) for drawing in drawings]
    made: list[Image.Image] = []
    for start in range(0, count, _IMAGES_AT_ONCE):
        part = captions[start : start + _IMAGES_AT_ONCE]
        generators = [torch.Generator().manual_seed(start + number) for number in range(len(part))]
        options = {"num_inference_steps": _STEPS, "guidance_scale": _GUIDANCE, "generator": generators}
        with torch.inference_mode():
            made += pipeline(part, negative_prompt=[""] * len(part), width=SIDE_PX, height=SIDE_PX, **options).images
    return accuracy(model, made, [labels(drawing) for drawing in drawings])


def write(folder: Path, *, prompts: int = 128) -> None:
    """Measure every checkpoint in the folder with the folder's classifier, and write `scores.json`."""
    model = load(folder / CLASSIFIER_FILE)
    known = accuracy(model, *drawn(200))
    names = checkpoints_in(folder)
    found = {name: {"sha256": digest(folder / name), "accuracy": measure(folder / name, model, prompts)} for name in names}
    record = {"prompts": prompts, "classifier": known, "checkpoints": found}
    (folder / SCORES_FILE).write_text(json.dumps(record, indent=1) + "\n")


def checkpoints_in(folder: Path) -> list[str]:
    """Return the names of the checkpoints in a folder."""
    return sorted(path.parent.name for path in folder.glob("*/model_index.json"))
