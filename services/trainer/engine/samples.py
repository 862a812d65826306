"""Images for a tune's validation prompts, generated with the adapter as it is after a step."""

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from services.trainer.engine.base import Base, generate_latents, on_device
from services.trainer.engine.config import Job
from services.trainer.engine.order import generator
from services.trainer.engine.reports import SampleReport
from services.trainer.engine.text import pipeline_arguments
from shared.formats.clip.emphasis import parse


@torch.no_grad()
def generate_samples(base: Base, job: Job, step: int, on_step: Callable[[], None]) -> SampleReport:
    """Generate one image for each prompt at the base's native size, write them to the job's folder, and return their report.

    A prompt has the same noise at every checkpoint, so that its images differ only by the training. The training itself is not
    disturbed, since each draw of noise has a generator of its own. `on_step` is called after each sampler step, and may raise
    to stop.
    """
    p, side = job.parameters, job.native_size_px // base.pipeline.vae_scale_factor
    shape = (1, base.pipeline.unet.config.in_channels, side, side)
    files: list[str] = []
    seeds: list[int] = []
    # Only one of VAE and text encoders is beside the UNet at a time.
    vae, *encoders = base.unused_in_steps(text_is_fixed=p.text_encoder_learning_rate == 0)
    with on_device(base, encoders):
        prompts = [pipeline_arguments(base, [prompt], parse, p.clip_skip) for prompt in p.validation_prompts]
    with on_device(base, [vae]):
        for number, arguments in enumerate(prompts):
            noise = generator(job.seed, "sample", number)
            with base.autocast():
                latents = generate_latents(
                    base,
                    arguments,
                    torch.randn(shape, generator=noise),
                    steps=p.sample_steps,
                    guidance_scale=p.sample_guidance_scale,
                    on_step=on_step,
                )
            file = job.output_folder / f"sample-{step}-{number}.png"
            _write(base, latents, file)
            files.append(str(file))
            seeds.append(noise.initial_seed())
    return SampleReport(step=step, files=files, seeds=seeds)


def _write(base: Base, latents: torch.Tensor, file: Path) -> None:
    vae = base.pipeline.vae
    shift, scale = vae.config.shift_factor or 0.0, vae.config.scaling_factor
    # The VAE is always fp32; the latents are half precision on a GPU.
    decoded = vae.decode(latents.to(vae.dtype) / scale + shift).sample[0]
    pixels = decoded.float().add(1).mul(127.5).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    partial = file.with_suffix(".partial")
    Image.fromarray(pixels).save(partial, "PNG")
    partial.replace(file)
