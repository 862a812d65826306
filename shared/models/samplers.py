"""OctoAI's sampler names, with the scheduler of diffusers that each one means.

The pairs follow the table of k-diffusion's names in diffusers' documentation of its schedulers.
"""

from pathlib import Path
from typing import Any

import diffusers

_SDE = {"algorithm_type": "sde-dpmsolver++"}
_KARRAS = {"use_karras_sigmas": True}
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "KLMS": ("LMSDiscreteScheduler", _KARRAS),
    "DDIM": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "DDPM": ("DDPMScheduler", {"clip_sample": False}),
    "HEUN": ("HeunDiscreteScheduler", {}),
    "K_HEUN": ("HeunDiscreteScheduler", _KARRAS),
    "K_EULER": ("EulerDiscreteScheduler", {}),
    "K_EULER_ANCESTRAL": ("EulerAncestralDiscreteScheduler", {}),
    "DPM_SOLVER_MULTISTEP": ("DPMSolverMultistepScheduler", {}),
    "DPM_PLUS_PLUS_2M_KARRAS": ("DPMSolverMultistepScheduler", _KARRAS),
    "DPM_PLUS_PLUS_2M_SDE": ("DPMSolverMultistepScheduler", _SDE),
    "DPM_PLUS_PLUS_2M_SDE_KARRAS": ("DPMSolverMultistepScheduler", _SDE | _KARRAS),
    "DPM_SINGLE": ("DPMSolverSinglestepScheduler", {}),
    "DPM_2": ("KDPM2DiscreteScheduler", {}),
    "DPM_2_ANCESTRAL": ("KDPM2AncestralDiscreteScheduler", {}),
    "DPM_2_KARRAS": ("KDPM2DiscreteScheduler", _KARRAS),
    "DPM_2_ANCESTRAL_KARRAS": ("KDPM2AncestralDiscreteScheduler", _KARRAS),
    "DPM_PLUS_PLUS_SDE_KARRAS": ("DPMSolverSinglestepScheduler", _KARRAS),
    "UNI_PC": ("UniPCMultistepScheduler", {}),
    "LCM": ("LCMScheduler", {}),
}
"""By OctoAI's name: the class, and its configuration besides the checkpoint's noise schedule."""


def make(name: str, folder: Path) -> Any:
    """Return a new scheduler; a scheduler has state while it runs, so each request needs its own.

    `folder` is the checkpoint's scheduler folder, with its noise schedule and prediction type.
    """
    kind, options = SAMPLERS[name]
    return getattr(diffusers, kind).from_pretrained(folder, local_files_only=True, **options)
