"""The base model of a tune, in memory, and images as it generates them."""

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from safetensors import SafetensorError

from services.trainer.engine.config import Device, Job
from services.trainer.engine.errors import BadBaseError
from shared.engines import Engine
from shared.errors import InvalidError, public_reason
from shared.models import checkpoints, pipelines


@dataclass(frozen=True)
class Base:
    """A loaded base. Its weights are frozen: fp32 on a CPU, half precision on a GPU, and the VAE always fp32."""

    engine: Engine
    pipeline: Any
    device: torch.device
    dtype: torch.dtype
    noise_schedule: DDPMScheduler
    """The forward process, with the base's own noise schedule and prediction type."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which the UNet's fp32 adapters and its other weights work together."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)

    @property
    def text_encoders(self) -> dict[str, Any]:
        """The text encoders by the names that diffusers and LoRA files give them."""
        encoders = {"text_encoder": self.pipeline.text_encoder}
        if self.engine is Engine.SDXL:
            encoders["text_encoder_2"] = self.pipeline.text_encoder_2
        return encoders

    def unused_in_steps(self, *, text_is_fixed: bool) -> list[Any]:
        """Return the parts that a training step does not run: the VAE, and the text encoders unless they are trained."""
        return [self.pipeline.vae, *(self.text_encoders.values() if text_is_fixed else ())]

    @property
    def tokenized_encoders(self) -> list[tuple[Any, Any]]:
        """The text encoders, each with its tokenizer."""
        tokenizers = [self.pipeline.tokenizer]
        if self.engine is Engine.SDXL:
            tokenizers.append(self.pipeline.tokenizer_2)
        return list(zip(self.text_encoders.values(), tokenizers, strict=True))

    @property
    def divisor_px(self) -> int:
        """The sides of training images are multiples of this: of the VAE's factor times the UNet's, and of the pipelines' 8."""
        return math.lcm(8, self.pipeline.vae_scale_factor * 2 ** (len(self.pipeline.unet.config.block_out_channels) - 1))


def pick_device(wanted: Device) -> torch.device:
    """Return the device that the setting names; `auto` is the GPU where there is one."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def pick_dtype(device: torch.device) -> torch.dtype:
    """Return the type of the frozen weights: fp32 on a CPU, bf16 on a GPU that computes in it, else fp16."""
    if device.type != "cuda":
        return torch.float32
    # Without this argument the answer is yes for GPUs before Ampere, which emulate bf16 slowly.
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


@contextmanager
def on_device(base: Base, modules: Sequence[torch.nn.Module]) -> Generator[None]:
    """Have modules on the base's device inside the block, and in the CPU's memory after it."""
    for module in modules:
        module.to(base.device)
    try:
        yield
    finally:
        leave_device(base, modules)


def leave_device(base: Base, modules: Sequence[torch.nn.Module]) -> None:
    """Move modules to the CPU's memory, so that the GPU's memory is free for what follows."""
    for module in modules:
        module.to("cpu")
    if base.device.type == "cuda":
        torch.cuda.empty_cache()


def load_base(job: Job, device: torch.device) -> Base:
    """Load the job's base from its diffusers folder, offline.

    Raises BadBaseError when the base is damaged, or is not of the engine and shape that the tune recorded.
    """
    dtype = pick_dtype(device)
    try:
        # The VAE of SDXL overflows in half precision. It is read as fp32, since a detour through half precision would lose bits.
        # Training encodes each image only once, so fp32 costs little.
        loaded = checkpoints.load(job.base_folder, device=device, dtype=dtype, vae_dtype=torch.float32)
    except (InvalidError, OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = error.message if isinstance(error, InvalidError) else public_reason(error)
        msg = f"the base checkpoint cannot be loaded: {reason}; tune another checkpoint, or upload this one again"
        raise BadBaseError(msg) from error
    if (loaded.info.engine, loaded.info.shape_class) != (job.engine, job.shape_class):
        msg = (
            f"the base checkpoint is {loaded.info.engine} of shape {loaded.info.shape_class}, but the tune was made for "
            f"{job.engine} of shape {job.shape_class}; start a new tune"
        )
        raise BadBaseError(msg)
    noise_schedule = DDPMScheduler.from_pretrained(loaded.scheduler_folder, local_files_only=True)
    pipeline = pipelines.build(loaded, noise_schedule)
    pipeline.unet.to(memory_format=torch.channels_last)
    return Base(engine=job.engine, pipeline=pipeline, device=device, dtype=dtype, noise_schedule=noise_schedule)


def generate_latents(
    base: Base,
    prompts: dict[str, torch.Tensor],
    noise: torch.Tensor,
    *,
    steps: int,
    guidance_scale: float,
    on_step: Callable[[], None],
) -> torch.Tensor:
    """Return the latents of one image for each prompt, made from its noise [n, channels, height, width].

    `prompts` is what `text.pipeline_arguments` returns. The pipeline is left as it was.

    `on_step` is called after each sampler step, and may raise to stop.
    """

    def after_step(_pipeline: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step()
        return tensors

    pipeline, factor = base.pipeline, base.pipeline.vae_scale_factor
    scheduler, was_training = pipeline.scheduler, pipeline.unet.training
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(base.noise_schedule.config)
    pipeline.unet.eval()
    try:
        return pipeline(
            **prompts,
            height=noise.shape[2] * factor,
            width=noise.shape[3] * factor,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            latents=noise.to(base.device, base.dtype),
            output_type="latent",
            callback_on_step_end=after_step,
        ).images
    finally:
        pipeline.scheduler = scheduler
        pipeline.unet.train(was_training)
