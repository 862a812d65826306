"""The small checkpoints can be built: a build of a few steps gives a folder that loads and draws."""

from pathlib import Path
from typing import Any

import pytest
import torch

from deploy.local.checkpoints import SHIPPED
from deploy.tiny import architecture, autoencoder, build, denoiser, images, text
from shared.engines import Engine
from shared.models import checkpoints, pipelines, samplers

TOKENIZER = SHIPPED / "tiny-sd15" / "tokenizer"


@pytest.fixture
def a_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VAE_STEPS", "DECODER_STEPS", "TEXT_STEPS", "SD15_STEPS", "SDXL_STEPS"):
        monkeypatch.setattr(build, name, 2)
    for module in (autoencoder, denoiser, text):
        monkeypatch.setattr(module, "BATCH", 2)
    monkeypatch.setattr(images, "COUNT", 4)
    monkeypatch.setattr(denoiser, "REPORT_EVERY", 1)


def _draw(folder: Path) -> Any:
    parts = checkpoints.load(folder, device=torch.device("cpu"), dtype=torch.float32)
    pipeline: Any = pipelines.build(parts, samplers.make("DDIM", parts.scheduler_folder))
    generator = torch.Generator().manual_seed(1)
    return parts.info, pipeline("a red star", width=64, height=64, num_inference_steps=2, generator=generator).images[0]


@pytest.mark.long
@pytest.mark.usefixtures("a_few_steps")
def test_both_are_built_and_finished_parts_are_kept(tmp_path: Path) -> None:
    said: list[str] = []
    build.Build(TOKENIZER, tmp_path / "scratch", said.append).sd15(tmp_path / "sd15")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "scratch").glob("*.safetensors")}

    build.Build(TOKENIZER, tmp_path / "scratch", said.append).sdxl(tmp_path / "sdxl")

    assert len(kept) == 4
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for folder, engine in (("sd15", Engine.SD15), ("sdxl", Engine.SDXL)):
        info, image = _draw(tmp_path / folder)
        assert (info.engine, info.native_size_px, image.size) == (engine, 64, (64, 64))


def test_the_widened_denoiser_draws_as_before_whatever_its_new_inputs_are() -> None:
    torch.manual_seed(0)
    narrow, wide = architecture.unet(sdxl=False), architecture.unet(sdxl=True)
    wide.load_state_dict(denoiser.widened(narrow.state_dict(), wide))
    noisy, time = torch.randn(2, 4, 16, 16), torch.tensor([10, 900])
    first, second = torch.randn(2, 32, architecture.TEXT_WIDTH), torch.randn(2, 32, architecture.SECOND_TEXT_WIDTH)
    added = {"text_embeds": torch.randn(2, architecture.SECOND_TEXT_WIDTH), "time_ids": torch.full((2, 6), 64.0)}

    with torch.no_grad():
        before = narrow(noisy, time, first).sample
        after = wide(noisy, time, torch.cat([first, second], dim=-1), added_cond_kwargs=added).sample

    torch.testing.assert_close(after, before)
