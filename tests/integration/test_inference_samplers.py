"""Samplers: each draws as its class of diffusers does when it is called as `docs/api.md` says, and none leaves noise."""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from services.inference.schemas import Sampler
from shared.engines import Engine
from shared.models import samplers
from tests.support.drawing_world import Studio, by_diffusers, differs, direct_pipelines, make_studio, pixels

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
STEPS = 8
TRAILING = {"timestep_spacing": "trailing"}
LINSPACE = {"timestep_spacing": "linspace"}
KARRAS = {"use_karras_sigmas": True}
SDE = {"algorithm_type": "sde-dpmsolver++"}
SINGLE = {"lower_order_final": True}
# Written by hand from the table in docs/api.md, not derived from our table.
EXPECTED: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "PNDM": (diffusers.PNDMScheduler, TRAILING | {"skip_prk_steps": True, "set_alpha_to_one": True}),
    "LMS": (diffusers.LMSDiscreteScheduler, TRAILING),
    "KLMS": (diffusers.LMSDiscreteScheduler, LINSPACE | KARRAS),
    "DDIM": (diffusers.DDIMScheduler, TRAILING | {"clip_sample": False, "set_alpha_to_one": True}),
    "DDPM": (diffusers.DDPMScheduler, TRAILING | {"clip_sample": False}),
    "HEUN": (diffusers.HeunDiscreteScheduler, TRAILING),
    "K_HEUN": (diffusers.HeunDiscreteScheduler, LINSPACE | KARRAS),
    "K_EULER": (diffusers.EulerDiscreteScheduler, TRAILING),
    "K_EULER_ANCESTRAL": (diffusers.EulerAncestralDiscreteScheduler, TRAILING),
    "DPM_SOLVER_MULTISTEP": (diffusers.DPMSolverMultistepScheduler, TRAILING),
    "DPM_PLUS_PLUS_2M_KARRAS": (diffusers.DPMSolverMultistepScheduler, KARRAS),
    "DPM_PLUS_PLUS_2M_SDE": (diffusers.DPMSolverMultistepScheduler, TRAILING | SDE),
    "DPM_PLUS_PLUS_2M_SDE_KARRAS": (diffusers.DPMSolverMultistepScheduler, SDE | KARRAS),
    "DPM_SINGLE": (diffusers.DPMSolverSinglestepScheduler, SINGLE),
    "DPM_2": (diffusers.KDPM2DiscreteScheduler, TRAILING),
    "DPM_2_KARRAS": (diffusers.KDPM2DiscreteScheduler, LINSPACE | KARRAS),
    "DPM_2_ANCESTRAL": (diffusers.KDPM2AncestralDiscreteScheduler, TRAILING),
    "DPM_2_ANCESTRAL_KARRAS": (diffusers.KDPM2AncestralDiscreteScheduler, LINSPACE | KARRAS),
    "DPM_PLUS_PLUS_SDE_KARRAS": (diffusers.DPMSolverSinglestepScheduler, SINGLE | SDE | KARRAS),
    "UNI_PC": (diffusers.UniPCMultistepScheduler, TRAILING),
    "LCM": (diffusers.LCMScheduler, {}),
    "TCD": (diffusers.TCDScheduler, {}),
}
WITH_NEW_NOISE = {"DDPM", "K_EULER_ANCESTRAL", "DPM_2_ANCESTRAL", "DPM_2_ANCESTRAL_KARRAS", "LCM", "TCD"} | {
    name for name in EXPECTED if "SDE" in name
}
MEAN, DEVIATION = 0.7, 0.3
SCHEDULE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    yield from make_studio(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="module")
def direct(studio: Studio) -> dict[Engine, Any]:
    return direct_pipelines(studio.folders)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A scheduler's folder whose spacing and final alpha are as in published checkpoints."""
    document = SCHEDULE | {"timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(document))
    return tmp_path


def test_every_sampler_has_its_row_here() -> None:
    assert set(EXPECTED) == {sampler.value for sampler in Sampler} == set(samplers.SAMPLERS)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_sampler_draws_what_its_diffusers_class_draws(studio: Studio, direct: dict[Engine, Any], name: str) -> None:
    kind, options = EXPECTED[name]
    pipeline = direct[Engine.SD15]
    own = pipeline.scheduler
    pipeline.scheduler = kind(**SCHEDULE, **options)
    expected = by_diffusers(pipeline, num_inference_steps=STEPS, **({"eta": 0.3} if name == "TCD" else {}))
    pipeline.scheduler = own

    assert np.abs(pixels(studio.draw(sampler=name, steps=STEPS)) - pixels(expected)).max() == 0


def sampled(name: str, folder: Path, steps: int, *, noise_seed: int = 0) -> torch.Tensor:
    """Return what a sampler makes of noise with a perfect model of normally distributed data: no network, only formulas."""
    scheduler = samplers.make(name, folder, steps)
    scheduler.set_timesteps(steps)
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)) * scheduler.init_noise_sigma
    taken = inspect.signature(scheduler.step).parameters
    generator = torch.Generator().manual_seed(noise_seed)
    options = {key: value for key, value in ({"generator": generator} | samplers.pipeline_options(name)).items() if key in taken}
    log_sigmas = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt().log().numpy()
    for time in scheduler.timesteps:
        seen = scheduler.scale_model_input(latents, time)
        sigma = float(np.exp(np.interp(float(time), np.arange(1000), log_sigmas)))
        alpha = 1 / (1 + sigma**2) ** 0.5
        gain = alpha * DEVIATION**2 / (alpha**2 * (DEVIATION**2 + sigma**2))
        clean = MEAN + gain * (seen - alpha * MEAN)
        latents = scheduler.step((seen - alpha * clean) / (sigma * alpha), time, latents, **options).prev_sample
    return latents


@pytest.mark.parametrize("steps", [1, 2, 4, 7, 30, 60])
@pytest.mark.parametrize("name", EXPECTED)
def test_no_number_of_steps_leaves_noise(folder: Path, name: str, steps: int) -> None:
    drawn = sampled(name, folder, steps)

    assert drawn.mean() == pytest.approx(MEAN, abs=0.05)
    # A few steps draw the mean; more come near to the data's deviation. Noise would be beyond.
    assert drawn.std() < DEVIATION + 0.1
    assert steps < 30 or drawn.std() > DEVIATION / 2


@pytest.mark.parametrize("name", ["DDIM", "PNDM", "LMS", "HEUN", "K_EULER", "DPM_2", "UNI_PC"])
@pytest.mark.parametrize("steps", [1, 3, 4, 7, 30, 60, 150])
def test_drawing_begins_at_pure_noise_and_ends_without(folder: Path, name: str, steps: int) -> None:
    scheduler = samplers.make(name, folder, steps)
    scheduler.set_timesteps(steps)

    assert int(scheduler.timesteps[0]) == 999
    if hasattr(scheduler, "sigmas"):
        assert float(scheduler.sigmas[-1]) == 0
    else:
        assert int(scheduler.timesteps[-1]) - 1000 // steps < 0
        assert float(scheduler.final_alpha_cumprod) == 1


@pytest.mark.parametrize("name", EXPECTED)
def test_new_noise_comes_from_the_seed_and_only_where_a_sampler_has_some(folder: Path, name: str) -> None:
    one, again, other = (sampled(name, folder, 6, noise_seed=seed) for seed in (1, 1, 2))

    assert torch.equal(one, again)
    assert torch.equal(one, other) is (name not in WITH_NEW_NOISE)


@pytest.mark.parametrize("name", EXPECTED)
def test_only_the_noise_schedule_of_a_checkpoint_counts(folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "scheduler_config.json").write_text(json.dumps(SCHEDULE))

    assert torch.equal(sampled(name, folder, 5), sampled(name, tmp_path / "plain", 5))


@pytest.mark.parametrize("name", EXPECTED)
def test_zero_terminal_snr_reaches_every_sampler(tmp_path: Path, name: str) -> None:
    document = SCHEDULE | {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(document))

    scheduler = samplers.make(name, tmp_path, 20)

    assert float(scheduler.alphas_cumprod[-1]) < 1e-6
    assert float(scheduler.alphas_cumprod[500]) < 0.25
    assert scheduler.config.prediction_type == "v_prediction"


def test_a_stochastic_sampler_draws_the_same_image_for_a_seed(studio: Studio) -> None:
    def draw(seed: int) -> Any:
        return studio.draw(sampler="DPM_PLUS_PLUS_SDE_KARRAS", seed=seed)

    assert not differs(draw(5), draw(5))
    assert differs(draw(5), draw(6))
