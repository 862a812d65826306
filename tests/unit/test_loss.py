"""The loss weights of every timestep are finite and positive, on every noise schedule that a base may have."""

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from services.trainer.engine.loss import min_snr_weights
from shared.formats.single_file import schedule

GAMMA = 5.0


def _scheduler(prediction: str, *, zero_snr: bool) -> DDPMScheduler:
    config = {name: value for name, value in schedule(prediction).items() if name not in {"_class_name", "set_alpha_to_one"}}
    return DDPMScheduler(**config, rescale_betas_zero_snr=zero_snr)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("zero_snr", [False, True])
def test_every_timestep_has_a_weight(prediction: str, zero_snr: bool) -> None:
    scheduler = _scheduler(prediction, zero_snr=zero_snr)
    weights = min_snr_weights(scheduler, torch.arange(1000), GAMMA)
    assert torch.isfinite(weights).all()
    assert (weights > 0).all()
    assert (weights <= 1).all()


def test_pure_noise_counts_fully_where_the_velocity_is_predicted() -> None:
    scheduler = _scheduler("v_prediction", zero_snr=True)
    assert scheduler.alphas_cumprod[-1] == 0
    assert min_snr_weights(scheduler, torch.tensor([999]), GAMMA) == 1


def test_without_gamma_all_timesteps_weigh_the_same() -> None:
    assert (min_snr_weights(_scheduler("epsilon", zero_snr=True), torch.arange(1000), None) == 1).all()
