"""LoRA files: diffusers' safetensors layout, with what a reader must know in the metadata."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft.utils.save_and_load import get_peft_model_state_dict
from safetensors.torch import save

from shared.formats.safetensors import with_ordered_metadata


def write_lora(path: Path, modules: Mapping[str, Any], header: Mapping[str, str]) -> None:
    """Write the adapters of these modules as one file that diffusers' `load_lora_weights` reads.

    `modules` maps `unet`, `text_encoder` and `text_encoder_2` to modules with a peft adapter named `default`; the file's
    metadata gets `header`. The weights are fp16. The file appears whole or not at all, and equal adapters give equal bytes.
    """
    tensors: dict[str, torch.Tensor] = {}
    adapters: dict[str, Any] = {}
    for part, module in modules.items():
        # diffusers reads peft's own names. Its older names exist for attention only, and from a file with both kinds of names
        # it silently loads one kind.
        weights = get_peft_model_state_dict(module)
        # transformers 5.6 removed the level `text_model` from CLIPTextModel; every reader of LoRA files still expects it.
        inner = "" if part == "unet" or hasattr(module, "text_model") else "text_model."
        for name, tensor in weights.items():
            tensors[f"{part}.{inner}{name}"] = tensor.detach().to("cpu", torch.float16).contiguous()
        config = module.peft_config["default"].to_dict()
        adapters |= {f"{part}.{key}": sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    metadata = {
        **header,
        "format": "pt",
        # Only this keeps alpha: without it a reader assumes that alpha is the rank.
        "lora_adapter_metadata": json.dumps(adapters, indent=2, sort_keys=True, default=str),
    }
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(with_ordered_metadata(save(tensors, metadata)))
    partial.replace(path)
