"""The diffusion loss with min-SNR weights."""

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import compute_snr

from services.trainer.engine.errors import BadBaseError


def prediction_target(
    schedule: DDPMScheduler, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
) -> torch.Tensor:
    """Return what the UNet should predict, by the base's prediction type: the noise, or the velocity.

    Velocity: v = alpha_t * noise - sigma_t * latents (Salimans & Ho 2022). Raises BadBaseError for any other type.
    """
    match schedule.config["prediction_type"]:
        case "epsilon":
            return noise
        case "v_prediction":
            return schedule.get_velocity(latents, noise, timesteps)
        case other:
            msg = f"the base's prediction type is {other!r}; tune a base that predicts epsilon or v_prediction"
            raise BadBaseError(msg)


def min_snr_weights(schedule: DDPMScheduler, timesteps: torch.Tensor, gamma: float | None) -> torch.Tensor:
    """Return the loss weight of each timestep, shape [n] (min-SNR: Hang et al. 2023, equations 5 to 8).

    min(SNR, gamma) / SNR where the UNet predicts the noise; min(SNR, gamma) / (SNR + 1) where it predicts the velocity; 1 where
    gamma is None.

    A schedule that ends at an SNR of zero (Lin et al. 2023) would give its last step no weight, or 0 / 0. There the weight is
    min(SNR + 1, gamma) / (SNR + 1) for the velocity, as in diffusers' training scripts, and 1 for the noise at an SNR of zero.
    """
    if gamma is None:
        return torch.ones(timesteps.shape, device=timesteps.device)
    snr = compute_snr(schedule, timesteps)
    if schedule.config["prediction_type"] != "v_prediction":
        return torch.where(snr > 0, snr.clamp(max=gamma) / snr, 1.0)
    if schedule.config.get("rescale_betas_zero_snr"):
        return (snr + 1.0).clamp(max=gamma) / (snr + 1.0)
    return snr.clamp(max=gamma) / (snr + 1.0)
