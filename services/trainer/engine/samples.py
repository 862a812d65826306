"""Pictures for a tune's validation prompts, drawn with the adapter as it is between two steps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from PIL import Image

from services.trainer.engine.base import Base
from services.trainer.engine.config import Job
from services.trainer.engine.order import generator
from services.trainer.messages import SampleReport


@torch.no_grad()
def draw_samples(base: Base, job: Job, step: int, on_step: Callable[[], None]) -> SampleReport:
    """Draw one picture for each prompt at the base's native size, write them to the job's folder and report them.

    A prompt's noise is the same at every checkpoint, so that its pictures show the training and nothing else. Training is not
    disturbed: its own noise comes from generators of its own. `on_step` is called after each sampler step and may raise.
    """
    p, side = job.parameters, job.native_size_px // base.pipeline.vae_scale_factor
    shape = (1, base.pipeline.unet.config.in_channels, side, side)
    files: list[str] = []
    seeds: list[int] = []

    def report(_pipeline: Any, _step: int, _timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        on_step()
        return kwargs

    with _resting(base):
        for number, prompt in enumerate(p.validation_prompts):
            noise = generator(job.seed, "sample", number)
            with torch.autocast(base.device.type, torch.bfloat16, enabled=base.device.type == "cuda"):
                latents = base.pipeline(
                    prompt,
                    height=job.native_size_px,
                    width=job.native_size_px,
                    num_inference_steps=p.sample_steps,
                    guidance_scale=p.sample_guidance_scale,
                    latents=torch.randn(shape, generator=noise).to(base.device, base.dtype),
                    output_type="latent",
                    callback_on_step_end=report,
                ).images
            file = job.output_folder / f"sample-{step}-{number}.png"
            _write(base, latents, file)
            files.append(str(file))
            seeds.append(noise.initial_seed())
    return SampleReport(step=step, files=files, seeds=seeds)


@contextmanager
def _resting(base: Base) -> Iterator[None]:
    """Have the pipeline draw, and leave it as it was."""
    unet, scheduler, was_training = base.pipeline.unet, base.pipeline.scheduler, base.pipeline.unet.training
    base.pipeline.scheduler = DPMSolverMultistepScheduler.from_config(base.noise.config)
    unet.eval()
    try:
        yield
    finally:
        unet.train(was_training)
        base.pipeline.scheduler = scheduler


def _write(base: Base, latents: torch.Tensor, file: Path) -> None:
    vae = base.pipeline.vae
    shift, scale = vae.config.shift_factor or 0.0, vae.config.scaling_factor
    # The VAE is in fp32 wherever the latents are not.
    decoded = vae.decode(latents.to(vae.dtype) / scale + shift).sample[0]
    pixels = decoded.float().add(1).mul(127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    draft = file.with_suffix(".part")
    Image.fromarray(pixels).save(draft, "PNG")
    draft.replace(file)
