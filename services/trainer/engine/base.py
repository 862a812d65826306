"""The base model of a tune, in memory."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from safetensors import SafetensorError

from services.trainer.engine.config import Device, Job
from services.trainer.errors import BadBaseError
from shared.engines import Engine
from shared.errors import InvalidError
from shared.models import checkpoints, pipelines


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


def load_base(job: Job, device: torch.device) -> Base:
    """Load the job's base from its diffusers folder, offline.

    Raises BadBaseError when it is damaged, or not of the engine and shape that the tune recorded.
    """
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    try:
        loaded = checkpoints.load(job.base_folder, device=device, dtype=dtype)
    except (InvalidError, OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        msg = f"the base checkpoint cannot be loaded: {error}; tune another checkpoint or bring this one anew"
        raise BadBaseError(msg) from error
    if (loaded.info.engine, loaded.info.shape_class) != (job.engine, job.shape_class):
        msg = (
            f"the base checkpoint is {loaded.info.engine} of shape {loaded.info.shape_class}, the tune was made for {job.engine} "
            f"of shape {job.shape_class}; start a new tune"
        )
        raise BadBaseError(msg)
    noise = DDPMScheduler.from_pretrained(loaded.scheduler_folder, local_files_only=True)
    pipeline = pipelines.build(loaded, noise)
    if dtype is not torch.float32:
        # The SDXL VAE overflows in half precision, and encoding happens once an image.
        pipeline.vae.to(torch.float32)
    pipeline.unet.to(memory_format=torch.channels_last)
    return Base(engine=job.engine, pipeline=pipeline, device=device, dtype=dtype, noise=noise)
