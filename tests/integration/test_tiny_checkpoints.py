"""The shipped small checkpoints are the ones that were scored, and still draw what a prompt says."""

import json
from typing import Any

import pytest
import torch

from deploy.local.checkpoints import SHIPPED
from services.trainer.tiny import score
from shared.models import checkpoints, pipelines, samplers

MOST_BYTES = 16_000_000
TOLERANCE = 0.06
"""Between machines the last bits of a picture differ, and with them now and then what it shows."""
SCORES: dict[str, Any] = json.loads((SHIPPED / "scores.json").read_text())


@pytest.mark.parametrize("name", sorted(path.name for path in SHIPPED.iterdir() if path.is_dir()))
def test_a_shipped_checkpoint_draws_what_its_committed_score_says(name: str) -> None:
    folder, committed = SHIPPED / name, SCORES["checkpoints"][name]
    weights = sorted(folder.rglob("*.safetensors"))

    assert sum(path.stat().st_size for path in weights) <= MOST_BYTES
    assert score.digest(folder) == committed["sha256"]
    parts = checkpoints.load(folder, device=torch.device("cpu"), dtype=torch.float32)
    pipeline = pipelines.build(parts, samplers.make("DDIM", parts.scheduler_folder))
    measured = score.measure(pipeline, score.load(SHIPPED / "classifier.safetensors"), SCORES["prompts"])
    print(name, measured)
    for aspect, share in committed["accuracy"].items():
        assert measured[aspect] == pytest.approx(share, abs=TOLERANCE), aspect


def test_the_classifier_knows_drawn_pictures_that_it_never_saw() -> None:
    drawn, wanted = score.drawn(200)

    measured = score.accuracy(score.load(SHIPPED / "classifier.safetensors"), drawn, wanted)

    assert min(measured.values()) >= SCORES["classifier_least"]
