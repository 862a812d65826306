"""The shipped small checkpoints are the ones that were scored, and still draw what a prompt says."""

import json
from typing import Any

import pytest

from deploy.local.checkpoints import SHIPPED
from deploy.tiny import score

MOST_BYTES = 16_000_000
TOLERANCE = 0.06
"""Between machines the last bits of a picture differ, and with them now and then what it shows."""
LEAST_KNOWN = 0.9
"""A classifier that is wrong more often could not tell a good checkpoint from a poor one."""
SCORES: dict[str, Any] = json.loads((SHIPPED / score.SCORES_FILE).read_text())


@pytest.mark.parametrize("name", score.checkpoints_in(SHIPPED))
def test_a_shipped_checkpoint_draws_what_its_committed_score_says(name: str) -> None:
    folder, committed = SHIPPED / name, SCORES["checkpoints"][name]

    assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) <= MOST_BYTES
    assert score.digest(folder) == committed["sha256"]
    measured = score.measure(folder, score.load(SHIPPED / score.CLASSIFIER_FILE), SCORES["prompts"])
    print(name, measured)
    for aspect, share in committed["accuracy"].items():
        assert measured[aspect] == pytest.approx(share, abs=TOLERANCE), aspect


def test_the_classifier_knows_drawn_pictures_that_it_never_saw() -> None:
    measured = score.accuracy(score.load(SHIPPED / score.CLASSIFIER_FILE), *score.drawn(200))

    assert measured == pytest.approx(SCORES["classifier"], abs=0.01)
    assert min(measured.values()) >= LEAST_KNOWN
