"""OctoAI's sampler names, with the scheduler of diffusers that each one means; `docs/api.md` has the table.

Of a checkpoint's scheduler only the noise schedule and the prediction type are used. Spacing and final sigma belong to the
sampler, so that the same weights give the same image as a folder and as a single file.

Timesteps are spaced "trailing" (Lin et al. 2024, table 2): drawing starts at pure noise whatever the number of steps. Distilled
checkpoints (Lightning, Hyper) and those with zero terminal SNR need that. Karras's spacing goes over the whole range of sigmas.
Every sampler ends at sigma 0, except TCD.
"""

import inspect
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler, rescale_zero_terminal_snr
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_dpmsolver_singlestep import DPMSolverSinglestepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler
from diffusers.schedulers.scheduling_k_dpm_2_ancestral_discrete import KDPM2AncestralDiscreteScheduler
from diffusers.schedulers.scheduling_k_dpm_2_discrete import KDPM2DiscreteScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from diffusers.schedulers.scheduling_tcd import TCDScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

_SCHEDULE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
_ZERO_SNR = "rescale_betas_zero_snr"
_LEAST_ALPHA = 2**-24
"""The product of alphas at the last timestep with zero terminal SNR; diffusers' Euler takes the same instead of 0."""
_DISTILLED = (50, 100, 200, 500, 1000)
"""The steps among which consistency samplers choose theirs: 50 in their training. Each divides 1,000 timesteps evenly."""

_ENOUGH_FOR_KARRAS = 8


class _EndsAtZero:
    """Ends at alpha 1 with any number of steps.

    diffusers' DDIM and PNDM step back by a whole stride. Where 1,000 is no multiple of the steps, rounding can put the last
    timestep one beyond its stride; the last step then ends at timestep 0, and some noise stays in the image.
    """

    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> None:
        super().set_timesteps(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue] - of the scheduler it is mixed into
        stride = self.config.num_train_timesteps // self.num_inference_steps
        self.timesteps[-1] = min(int(self.timesteps[-1]), stride - 1)


class DDIM(_EndsAtZero, DDIMScheduler):
    """diffusers' DDIM without residual noise."""


class PNDM(_EndsAtZero, PNDMScheduler):
    """diffusers' PNDM without residual noise."""


@dataclass(frozen=True)
class Sampler:
    """A scheduler's class and its configuration besides the checkpoint's noise schedule."""

    kind: type[Any]
    options: dict[str, Any] = field(default_factory=dict)
    eta: float | None = None
    """The share of new noise in a step, where the pipeline has to be told."""

    @property
    def is_karras(self) -> bool:
        """Whether sigmas are spaced as in Karras et al. 2022, equation 5."""
        return bool(self.options.get("use_karras_sigmas"))


_TRAILING = {"timestep_spacing": "trailing"}
_KARRAS = {"use_karras_sigmas": True}
_ZERO = {"final_sigmas_type": "zero"}
_SDE = {"algorithm_type": "sde-dpmsolver++"}
_MULTISTEP = DPMSolverMultistepScheduler
_SINGLESTEP = DPMSolverSinglestepScheduler
_SINGLE = _ZERO | {"lower_order_final": True}
SAMPLERS: dict[str, Sampler] = {
    "PNDM": Sampler(PNDM, _TRAILING | {"skip_prk_steps": True, "set_alpha_to_one": True}),
    "LMS": Sampler(LMSDiscreteScheduler, _TRAILING),
    "KLMS": Sampler(LMSDiscreteScheduler, _KARRAS),
    "DDIM": Sampler(DDIM, _TRAILING | {"clip_sample": False, "set_alpha_to_one": True}),
    "DDPM": Sampler(DDPMScheduler, _TRAILING | {"clip_sample": False}),
    "HEUN": Sampler(HeunDiscreteScheduler, _TRAILING),
    "K_HEUN": Sampler(HeunDiscreteScheduler, _KARRAS),
    "K_EULER": Sampler(EulerDiscreteScheduler, _TRAILING | _ZERO),
    "K_EULER_ANCESTRAL": Sampler(EulerAncestralDiscreteScheduler, _TRAILING),
    "DPM_SOLVER_MULTISTEP": Sampler(_MULTISTEP, _TRAILING | _ZERO),
    "DPM_PLUS_PLUS_2M_KARRAS": Sampler(_MULTISTEP, _KARRAS | _ZERO),
    "DPM_PLUS_PLUS_2M_SDE": Sampler(_MULTISTEP, _TRAILING | _ZERO | _SDE),
    "DPM_PLUS_PLUS_2M_SDE_KARRAS": Sampler(_MULTISTEP, _KARRAS | _ZERO | _SDE),
    "DPM_SINGLE": Sampler(_SINGLESTEP, _SINGLE),
    "DPM_2": Sampler(KDPM2DiscreteScheduler, _TRAILING),
    "DPM_2_KARRAS": Sampler(KDPM2DiscreteScheduler, _KARRAS),
    "DPM_2_ANCESTRAL": Sampler(KDPM2AncestralDiscreteScheduler, _TRAILING),
    "DPM_2_ANCESTRAL_KARRAS": Sampler(KDPM2AncestralDiscreteScheduler, _KARRAS),
    "DPM_PLUS_PLUS_SDE_KARRAS": Sampler(_SINGLESTEP, _SINGLE | _KARRAS | _SDE),
    "UNI_PC": Sampler(UniPCMultistepScheduler, _TRAILING | _ZERO),
    "LCM": Sampler(LCMScheduler),
    "TCD": Sampler(TCDScheduler, eta=0.3),
}
"""By OctoAI's name; `TCD` is Tunesmith's own, with the eta that its authors recommend (Zheng et al. 2024)."""


def make(name: str, folder: Path, steps: int = 30) -> Any:
    """Return a new scheduler for this number of steps; a scheduler has state while it runs, so each request needs its own.

    DDIM is the same for every number. `folder` is the checkpoint's scheduler folder, with its noise schedule and prediction type.
    """
    sampler = SAMPLERS[name]
    told = json.loads((folder / "scheduler_config.json").read_bytes())
    known = inspect.signature(sampler.kind.__init__).parameters
    options = {key: told[key] for key in _SCHEDULE if told.get(key) is not None} | sampler.options
    if told.get(_ZERO_SNR) and _ZERO_SNR in known:
        options[_ZERO_SNR] = True
    elif told.get(_ZERO_SNR):
        options["trained_betas"] = _zero_snr_betas(options)
    if sampler.is_karras and "timestep_spacing" in known:
        # diffusers' LMS, Heun and DPM2 take the range of sigmas from the spaced timesteps. "linspace" has both ends. With one
        # step it has the wrong one, and with a few, steps between sigmas so far apart leave noise.
        options["timestep_spacing"] = "linspace" if steps >= _ENOUGH_FOR_KARRAS else "trailing"
    if "steps_offset" in known:
        # Only "leading" has a use for it. diffusers' pipelines warn about any other value, and set this one.
        options["steps_offset"] = 1
    if "original_inference_steps" in known:
        options["original_inference_steps"] = next(most for most in _DISTILLED if steps <= most)
    return sampler.kind(**options)


def pipeline_options(name: str) -> dict[str, Any]:
    """Return what a pipeline has to be told for this sampler when it is called."""
    eta = SAMPLERS[name].eta
    return {} if eta is None else {"eta": eta}


def _zero_snr_betas(schedule: dict[str, Any]) -> list[float]:
    """Return the betas with zero terminal SNR (Lin et al. 2024, algorithm 1), for schedulers that cannot compute them.

    The last one is just below 1, since these schedulers divide by the product of alphas.
    """
    unscaled = {key: schedule[key] for key in _SCHEDULE if key in schedule}
    betas = rescale_zero_terminal_snr(DDIMScheduler(**unscaled).betas)
    product = torch.cumprod(1 - betas, dim=0)
    betas[-1] = 1 - _LEAST_ALPHA / product[-2]
    return betas.tolist()
