"""The shipped small checkpoints are the ones that were scored, and they draw what a prompt says."""

import json
from typing import Any

import pytest

from deploy.local.checkpoints import SHIPPED
from deploy.tiny import score

MOST_BYTES = 16_000_000
TOLERANCE = 0.06
"""The last bits of an image differ between machines, which now and then changes what it shows."""
LEAST_KNOWN = 0.9
"""A classifier that is wrong more often cannot tell a good checkpoint from a poor one."""
SCORES: dict[str, Any] = json.loads((SHIPPED / score.SCORES_FILE).read_text())


@pytest.mark.parametrize("name", score.checkpoints_in(SHIPPED))
def test_a_shipped_checkpoint_is_small_and_the_one_that_was_scored(name: str) -> None:
    folder = SHIPPED / name

    assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) <= MOST_BYTES
    assert score.digest(folder) == SCORES["checkpoints"][name]["sha256"]


@pytest.mark.long
@pytest.mark.parametrize("name", score.checkpoints_in(SHIPPED))
def test_a_shipped_checkpoint_draws_what_its_committed_score_says(name: str) -> None:
    folder, committed = SHIPPED / name, SCORES["checkpoints"][name]

    measured = score.measure(folder, score.load(SHIPPED / score.CLASSIFIER_FILE), SCORES["prompts"])
    print(name, measured)
    for aspect, share in committed["accuracy"].items():
        assert measured[aspect] == pytest.approx(share, abs=TOLERANCE), aspect


def test_the_classifier_knows_drawn_images_that_it_was_not_trained_on() -> None:
    measured = score.accuracy(score.load(SHIPPED / score.CLASSIFIER_FILE), *score.drawn(200))

    assert measured == pytest.approx(SCORES["classifier"], abs=0.01)
    assert min(measured.values()) >= LEAST_KNOWN
