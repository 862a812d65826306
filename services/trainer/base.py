"""The base model of a tune, in memory."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from services.trainer.errors import BadBaseError
from services.trainer.spec import Device
from shared.engines import Engine

PIPELINES: dict[Engine, type[StableDiffusionPipeline] | type[StableDiffusionXLPipeline]] = {
    Engine.SD15: StableDiffusionPipeline,
    Engine.SDXL: StableDiffusionXLPipeline,
}


@dataclass(frozen=True)
class Base:
    """A loaded base: frozen, on its device, in fp32 on a CPU and bf16 on a GPU (the VAE always in fp32)."""

    engine: Engine
    pipeline: Any
    device: torch.device
    dtype: torch.dtype
    noise: DDPMScheduler
    """The forward process, with the base's own noise schedule and prediction type."""

    @property
    def text_encoders(self) -> dict[str, Any]:
        """The text encoders by the names that diffusers and LoRA files give them."""
        encoders = {"text_encoder": self.pipeline.text_encoder}
        if self.engine is Engine.SDXL:
            encoders["text_encoder_2"] = self.pipeline.text_encoder_2
        return encoders

    @property
    def divisor_px(self) -> int:
        """Sides of training images are multiples of this: the VAE's factor times the UNet's, and the pipelines ask for 8."""
        return math.lcm(8, self.pipeline.vae_scale_factor * 2 ** (len(self.pipeline.unet.config.block_out_channels) - 1))


def pick_device(wanted: Device) -> torch.device:
    """Return the device that a setting means; `auto` is the GPU where there is one."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def load_base(folder: Path, engine: Engine, device: torch.device) -> Base:
    """Load a base from its diffusers folder, offline. Raises BadBaseError when it is not what it should be."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    try:
        pipeline: Any = PIPELINES[engine].from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        msg = f"the base checkpoint cannot be loaded as {engine}: {error}; tune another checkpoint or bring this one anew"
        raise BadBaseError(msg) from error
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    if dtype is not torch.float32:
        # The SDXL VAE overflows in half precision, and encoding happens once an image.
        pipeline.vae.to(torch.float32)
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)):
        if module is not None:
            module.requires_grad_(requires_grad=False)
    pipeline.unet.to(memory_format=torch.channels_last)
    return Base(
        engine=engine,
        pipeline=pipeline,
        device=device,
        dtype=dtype,
        noise=DDPMScheduler.from_config(pipeline.scheduler.config),
    )
