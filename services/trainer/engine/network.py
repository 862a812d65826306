"""The trainable part: LoRA adapters on the UNet's attention and, if the tune wants them, on the text encoders."""

from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model

from services.trainer.engine.base import Base
from services.trainer.engine.config import Job, Parameters
from services.trainer.engine.order import generator
from shared.tunes.memory import SMALL_PX, activation_bytes

_UNET_TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]
# Adapters on the convolutions as well do not improve the subject (the loss on images of it that were not trained on falls by
# 30 % either way), and its class drifts nearly twice as far (+22 % instead of +12 %).
_SMALL_UNET_TARGETS = [*_UNET_TARGETS, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
_TEXT_TARGETS = ["k_proj", "q_proj", "v_proj", "out_proj"]


def add_adapters(
    base: Base, parameters: Parameters, seed: int, *, native_size_px: int
) -> tuple[dict[str, Any], dict[str, torch.nn.Parameter]]:
    """Add adapters, which change nothing before they are trained (B = 0: Hu et al. 2021, section 4.1).

    Returns the modules that have one, by diffusers' names, and the trainable weights by their full names.
    """
    unet_targets = _SMALL_UNET_TARGETS if native_size_px < SMALL_PX else _UNET_TARGETS
    targets: dict[str, tuple[Any, list[str]]] = {"unet": (base.pipeline.unet, unet_targets)}
    if parameters.text_encoder_learning_rate:
        targets |= {name: (encoder, _TEXT_TARGETS) for name, encoder in base.text_encoders.items()}
    # peft draws A from torch's global generator.
    torch.manual_seed(generator(seed, "adapter", 0).initial_seed())
    for module, names in targets.values():
        config = LoraConfig(
            r=parameters.rank,
            lora_alpha=parameters.alpha or parameters.rank,
            init_lora_weights="gaussian",
            target_modules=names,
        )
        inject_adapter_in_model(config, module, "default")
    weights = {
        f"{part}.{name}": weight
        for part, (module, _) in targets.items()
        for name, weight in module.named_parameters()
        if weight.requires_grad
    }
    return {part: module for part, (module, _) in targets.items()}, weights


def needs_gradient_checkpointing(base: Base, job: Job) -> bool:
    """Return whether the activations of a step do not fit the GPU, so that the backward pass must recompute them.

    That makes a step take a third longer.
    """
    if base.device.type != "cuda":
        return False
    images = job.parameters.batch_size + (job.parameters.class_batch_size if job.parameters.class_images else 0)
    free, _ = torch.cuda.mem_get_info(base.device)
    return activation_bytes(job.engine, images, job.parameters.resolution) > 0.8 * free
