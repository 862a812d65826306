"""The trainable part: LoRA adapters on the UNet's transformer blocks and, if the tune wants them, on the text encoders."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer

from services.trainer.engine.base import Base
from services.trainer.engine.config import Parameters
from services.trainer.engine.order import generator

UNET_TARGETS = ["to_k", "to_q", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]
"""All matrices of the transformer blocks, as kohya-ss and OneTrainer train them; diffusers' examples train attention alone."""
_TEXT_TARGETS = ["k_proj", "q_proj", "v_proj", "out_proj"]


def add_adapters(base: Base, parameters: Parameters, seed: int) -> tuple[dict[str, Any], dict[str, torch.nn.Parameter]]:
    """Add adapters, which change nothing before they are trained (B = 0: Hu et al. 2021, section 4.1).

    Returns the modules that have one, by diffusers' names, and the trainable weights by their full names.
    """
    targets: dict[str, tuple[Any, list[str]]] = {"unet": (base.pipeline.unet, UNET_TARGETS)}
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


def adapted_layers(module: torch.nn.Module) -> list[BaseTunerLayer]:
    """Return the layers of a module that have an adapter."""
    return [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]


@contextmanager
def switched_off(layers: Sequence[BaseTunerLayer]) -> Generator[None]:
    """Have the layers work without their adapters inside the block, as the base does."""
    for layer in layers:
        layer.enable_adapters(enabled=False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(enabled=True)
