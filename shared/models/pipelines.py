"""Builds diffusers' pipelines from loaded components."""

import json
from enum import StrEnum
from itertools import product
from typing import Any

import diffusers
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from shared.engines import Engine
from shared.models.checkpoints import Components

Pipeline = Any
"""One of diffusers' pipelines; their classes have no common base with the signature of a call."""


class Task(StrEnum):
    """What a pipeline starts from: noise, an image, or an image and a mask. The values are parts of diffusers' class names."""

    TEXT_TO_IMAGE = ""
    IMAGE_TO_IMAGE = "Img2Img"
    INPAINTING = "Inpaint"


def pipeline_class(engine: Engine, task: Task, *, with_controlnet: bool) -> type[Any]:
    """Return diffusers' class for the engine and the task; the names of these classes are regular."""
    family = "" if engine is Engine.SD15 else "XL"
    return getattr(diffusers, f"StableDiffusion{family}{'ControlNet' if with_controlnet else ''}{task}Pipeline")


def preload() -> None:
    """Import every pipeline class, so that no request waits for it."""
    for engine, task, with_controlnet in product((Engine.SD15, Engine.SDXL), Task, (False, True)):
        pipeline_class(engine, task, with_controlnet=with_controlnet)


def build(
    components: Components,
    scheduler: SchedulerMixin,
    *,
    task: Task = Task.TEXT_TO_IMAGE,
    controlnet: ControlNetModel | None = None,
    vae: AutoencoderKL | None = None,
) -> Any:
    """Return a pipeline of the components' engine for a task, without safety checker, watermark and progress bar.

    Nothing is copied: LoRAs that are loaded into the components act in every pipeline of them. `vae` replaces the checkpoint's
    VAE. A refiner has image-to-image only.
    """
    kind = pipeline_class(components.info.engine, task, with_controlnet=controlnet is not None)
    parts: dict[str, Any] = {"vae": vae or components.vae, "unet": components.unet, "scheduler": scheduler}
    if controlnet is not None:
        parts["controlnet"] = controlnet
    if components.info.engine is Engine.SD15:
        [encoder], [tokenizer] = components.text_encoders, components.tokenizers
        parts |= {"text_encoder": encoder, "tokenizer": tokenizer, "safety_checker": None, "feature_extractor": None}
        parts["requires_safety_checker"] = False
    else:
        # A refiner has only the second of each.
        *first, second = components.text_encoders
        *tokenizer, tokenizer_2 = components.tokenizers
        parts |= {"text_encoder": first[0] if first else None, "text_encoder_2": second}
        parts |= {"tokenizer": tokenizer[0] if tokenizer else None, "tokenizer_2": tokenizer_2}
        parts |= {"force_zeros_for_empty_prompt": components.zeros_for_empty_prompt, "add_watermarker": False}
        if task is not Task.TEXT_TO_IMAGE:
            parts["requires_aesthetics_score"] = bool(_index(components).get("requires_aesthetics_score", False))
    pipeline = kind(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _index(components: Components) -> dict[str, Any]:
    return json.loads((components.scheduler_folder.parent / "model_index.json").read_bytes())
