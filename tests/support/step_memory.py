"""Counts the memory of a training step of a published UNet with fake tensors: the real classes and sizes, and no bytes."""

import json
import weakref
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from services.trainer.engine.network import UNET_TARGETS
from shared.engines import Engine

CONFIGS: dict[str, Any] = json.loads(Path(__file__).with_name("published_configs.json").read_bytes())
"""The configurations of the published SD 1.5 and SDXL."""
_TOKENS = 77
_ADDED_NUMBERS = 6


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that were made inside it and still exist, and their peak."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: Any = WeakIdKeyDictionary()
        # A view of a weight is no new memory.
        for weight in model.parameters():
            self._known[weight.untyped_storage()] = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._add, out)
        return out

    def _add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._gone, size)

    def _gone(self, size: int) -> None:
        self.live -= size


def count_step(engine: Engine, side_px: int, images: int, *, checkpointing: bool, rank: int = 16) -> dict[str, int]:
    """Return bytes of a UNet's bf16 weights, of its adapter's fp32 weights, and of what a step adds to both at its peak."""
    settings = CONFIGS["SD15_UNET" if engine is Engine.SD15 else "SDXL_UNET"]
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(settings).requires_grad_(requires_grad=False)
        inject_adapter_in_model(LoraConfig(r=rank, target_modules=UNET_TARGETS), unet, "default")
    with FakeTensorMode():
        # `to` cannot replace fake weights.
        for module in unet.modules():
            for name, weight in module._parameters.items():
                if weight is not None:
                    kind = torch.float32 if weight.requires_grad else torch.bfloat16
                    fake = torch.empty(weight.shape, dtype=kind, device="cpu")
                    module._parameters[name] = torch.nn.Parameter(fake, weight.requires_grad)
        trained = [weight for weight in unet.parameters() if weight.requires_grad]
        frozen = sum(weight.nbytes for weight in unet.parameters() if not weight.requires_grad)
        if checkpointing:
            unet.enable_gradient_checkpointing()
        unet.train()
        side = side_px // 8
        noisy = torch.randn(images, 4, side, side)
        hidden = torch.randn(images, _TOKENS, settings["cross_attention_dim"], dtype=torch.bfloat16)
        added = None
        if engine is Engine.SDXL:
            added = {"text_embeds": torch.randn(images, 1280), "time_ids": torch.randn(images, _ADDED_NUMBERS)}
        with LiveBytes(unet) as counted:
            with torch.autocast("cpu", torch.bfloat16):
                out = unet(noisy, torch.ones(images, dtype=torch.long), hidden, added_cond_kwargs=added).sample
            kept = counted.live
            out.float().square().mean().backward()
    return {"unet": frozen, "adapter": sum(weight.nbytes for weight in trained), "kept": kept, "peak": counted.peak}


def count_coding(side_px: int) -> dict[str, int]:
    """Return the peak bytes that the published VAE needs to encode and to decode an image in fp32, besides its weights."""
    with FakeTensorMode(), torch.no_grad():
        vae: Any = AutoencoderKL.from_config(CONFIGS["SDXL_VAE"])
        inputs = {"encoding": torch.randn(1, 3, side_px, side_px), "decoding": torch.randn(1, 4, side_px // 8, side_px // 8)}
        peaks: dict[str, int] = {}
        for name, given in inputs.items():
            with LiveBytes(vae) as counted:
                (vae.encode if name == "encoding" else vae.decode)(given)
            peaks[name] = counted.peak
    return peaks
