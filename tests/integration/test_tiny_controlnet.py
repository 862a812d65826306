"""The training of the small ControlNets can be resumed, and writes a ControlNet for its checkpoint."""

from pathlib import Path

import pytest
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel

from deploy.tiny import controlnet
from shared.engines import Engine
from tests.support.tiny_pipelines import save_tiny_pipeline

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
STEPS = 4


class InterruptedTrainingError(Exception):
    """The training was interrupted."""


@pytest.mark.parametrize("engine", [Engine.SD15, Engine.SDXL], ids=["sd15", "sdxl"])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controlnet, "BATCH", 2)
    base = tmp_path / "base"
    save_tiny_pipeline(engine, base, prediction_type="v_prediction")
    before = (base / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    pixels = torch.randint(0, 255, (4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    captions = ["a red cat", "a dog", "a star at night", ""]

    def train(name: str, *, until: int = STEPS) -> ControlNetModel | None:
        def report(line: str) -> None:
            if line.startswith(f"controlnet {until}/") and until < STEPS:
                raise InterruptedTrainingError

        torch.manual_seed(0)
        target, state = tmp_path / name, tmp_path / f"{name}.safetensors"
        controlnet.train(base, pixels, captions, target, state=state, report=report, steps=STEPS, keep_every=2)
        return ControlNetModel.from_pretrained(target)

    whole = train("whole")
    with pytest.raises(InterruptedTrainingError):
        train("parts", until=2)
    parts = train("parts")

    assert whole is not None
    assert parts is not None
    learnt = parts.state_dict()
    assert all(torch.equal(weights, learnt[name]) for name, weights in whole.state_dict().items())
    # It learnt: weights that start as zero are no longer zero.
    assert learnt["controlnet_mid_block.weight"].any()
    assert (base / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == before
