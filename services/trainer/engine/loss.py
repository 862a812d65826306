"""The diffusion loss with min-SNR weights."""

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import compute_snr

from services.trainer.errors import BadBaseError


def target(noise: DDPMScheduler, latents: torch.Tensor, drawn: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """Return what the UNet should predict, by the base's prediction type: the noise, or the velocity.

    Velocity: v = alpha_t * noise - sigma_t * latents (Salimans & Ho 2022). Raises BadBaseError for any other type.
    """
    if noise.config["prediction_type"] == "epsilon":
        return drawn
    if noise.config["prediction_type"] == "v_prediction":
        return noise.get_velocity(latents, drawn, timesteps)
    msg = f"the base predicts {noise.config['prediction_type']!r}; only epsilon and v_prediction can be tuned"
    raise BadBaseError(msg)


def min_snr_weights(noise: DDPMScheduler, timesteps: torch.Tensor, gamma: float | None) -> torch.Tensor:
    """Return the loss weight of each timestep, shape [n] (min-SNR: Hang et al. 2023, equations 5 to 8).

    min(SNR, gamma) / SNR where the UNet predicts noise, min(SNR, gamma) / (SNR + 1) where it predicts velocity; 1 without gamma.
    """
    if gamma is None:
        return torch.ones(timesteps.shape, device=timesteps.device)
    snr = compute_snr(noise, timesteps)
    capped = snr.clamp(max=gamma)
    return capped / (snr + 1.0) if noise.config["prediction_type"] == "v_prediction" else capped / snr
