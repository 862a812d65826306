"""OctoAI's sampler names and the diffusers scheduler behind each.

The pairing of k-diffusion's names with classes follows the table in diffusers' own documentation of its schedulers.
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
"""Class and configuration beyond the checkpoint's own noise schedule, by OctoAI's name."""


def make(name: str, folder: Path) -> Any:
    """Return a fresh scheduler: they keep state while they run, so each request has its own.

    `folder` is the checkpoint's scheduler folder, from which the noise schedule and the prediction type are read.
    """
    kind, options = SAMPLERS[name]
    return getattr(diffusers, kind).from_pretrained(folder, local_files_only=True, **options)
