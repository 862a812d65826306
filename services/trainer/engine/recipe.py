"""The training recipe: a LoRA on Stable Diffusion 1.5 or SDXL, from images and captions, top to bottom."""

import contextlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import cast_training_params

from services.trainer.engine import optimizers
from services.trainer.engine.base import Base, load_base, pick_device
from services.trainer.engine.config import Job, Parameters, Phase
from services.trainer.engine.export import write_lora
from services.trainer.engine.images import load_picture, shrink
from services.trainer.engine.loss import min_snr_weights, target
from services.trainer.engine.network import add_adapters, needs_gradient_checkpointing
from services.trainer.engine.order import drawn, generator
from services.trainer.engine.prior import class_prompt, draw_class_latents
from services.trainer.engine.samples import draw_samples
from services.trainer.engine.state import load_state, read_class_latents, save_state
from services.trainer.engine.text import Captions, added_conditions
from services.trainer.errors import NotFiniteError, OutOfMemoryError
from services.trainer.messages import CheckpointReport, ChildReport, PhaseReport, StepReport, Stopped, Trained

LORA_FILE = "lora.safetensors"
_REPORT_EVERY_S = 0.25


class Example(NamedTuple):
    """A picture in the VAE's latent space, as the mean and deviation [4, height, width] of what the VAE gives for it."""

    mean: torch.Tensor
    deviation: torch.Tensor
    caption: str


class StopRequestedError(Exception):
    """The parent asked to stop before there was anything to save."""


def train(job: Job, report: Callable[[ChildReport], None], stop_requested: Callable[[], bool]) -> Trained | Stopped:
    """Train the job's LoRA and write it to its folder; with `stop_requested`, stop after a checkpoint instead.

    On a CPU (fp32) the outcome is bit-equal however often it was stopped and resumed. Raises the errors of
    `services.trainer.errors`.
    """
    try:
        return _train(job, report, stop_requested)
    except StopRequestedError:
        return Stopped(steps_run=0)
    except (MemoryError, RuntimeError) as error:
        # torch raises a class of its own on a GPU, and a bare RuntimeError on a CPU.
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        p = job.parameters
        msg = (
            f"the trainer's memory does not suffice for batch_size {p.batch_size} and class_batch_size {p.class_batch_size} at "
            f"{p.resolution} px and rank {p.rank}; lower them, or run the trainer on a larger device"
        )
        raise OutOfMemoryError(msg) from error


def _train(job: Job, report: Callable[[ChildReport], None], stop_requested: Callable[[], bool]) -> Trained | Stopped:
    p = job.parameters

    def alive(phase: Phase) -> None:
        report(PhaseReport(phase=phase))
        if stop_requested():
            raise StopRequestedError

    alive(Phase.LOAD)
    device = pick_device(job.device)
    # On a CPU a resumed run equals an uninterrupted one bit by bit; a GPU is allowed its faster kernels.
    torch.use_deterministic_algorithms(device.type == "cpu")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    base = load_base(job, device)

    alive(Phase.CACHE)
    if job.shrink_to_px:
        for image in job.images:
            shrink(image.file, job.shrink_to_px)
    examples = [encode_picture(base, job, image.file, image.caption) for image in job.images]
    prompts = [class_prompt(example.caption, job.trigger_word) for example in examples]
    fixed_text = p.text_encoder_learning_rate == 0
    captions = Captions(base, {image.caption for image in job.images} | set(prompts) | {""}, fixed=fixed_text)

    alive(Phase.PRIOR)
    class_latents: list[torch.Tensor] = []
    if p.class_images and job.resume_from:
        class_latents = [latents.to(device) for latents in read_class_latents(job.resume_from)]
    elif p.class_images:
        pairs = list(zip(prompts, (tuple(example.mean.shape[1:]) for example in examples), strict=True))
        wanted = [pairs[number % len(pairs)] for number in range(p.class_images)]
        class_latents = draw_class_latents(base, wanted, p, job.seed, lambda: alive(Phase.PRIOR))
    class_examples = [
        Example(latents, torch.zeros_like(latents), prompts[number % len(prompts)])
        for number, latents in enumerate(class_latents)
    ]

    alive(Phase.TRAIN)
    modules, weights = add_adapters(base, p, job.seed, native_size_px=job.native_size_px)
    cast_training_params(list(modules.values()), torch.float32)
    if needs_gradient_checkpointing(base, job):
        base.pipeline.unet.enable_gradient_checkpointing()
    base.pipeline.unet.train()
    groups = [
        {"params": [w for name, w in weights.items() if name.startswith("unet.")], "lr": p.learning_rate},
        {"params": [w for name, w in weights.items() if not name.startswith("unet.")], "lr": p.text_encoder_learning_rate},
    ]
    optimizer = optimizers.make([group for group in groups if group["params"]], p)
    peaks = [group["lr"] for group in optimizer.param_groups]
    warmup_steps = min(p.warmup_steps, job.steps // 10)
    # Only the schedule's formula is used, since it makes the rate a function of the step and leaves no state to resume.
    schedule = get_scheduler(p.lr_schedule, optimizer, num_warmup_steps=warmup_steps, num_training_steps=job.steps)
    factor_at = schedule.lr_lambdas[0]
    first = load_state(job.resume_from, weights, optimizer) if job.resume_from else 0

    def save(step: int) -> None:
        file = job.output_folder / f"checkpoint-{step}.safetensors"
        save_state(file, step, weights, optimizer, class_latents)
        report(CheckpointReport(step=step, file=str(file)))

    def sample(step: int) -> None:
        # A tune that is asked to stop does not finish its pictures: the state after this step is safe already.
        with contextlib.suppress(StopRequestedError):
            report(draw_samples(base, job, step, lambda: alive(Phase.SAMPLE)))
        report(PhaseReport(phase=Phase.TRAIN))

    unread: list[torch.Tensor] = []
    reported_at = time.monotonic()
    for step in range(first, job.steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor_at(step)
        batch = [examples[i] for i in drawn(job.seed, "image", step, size=len(examples), count=p.batch_size)]
        shares = [1.0 / p.batch_size] * p.batch_size
        if class_examples:
            chosen = drawn(job.seed, "class", step, size=len(class_examples), count=p.class_batch_size)
            batch += [class_examples[i] for i in chosen]
            shares += [p.class_weight / p.class_batch_size] * p.class_batch_size
        loss = batch_loss(base, batch, shares, captions, p, generator(job.seed, "step", step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(weights.values()), p.max_gradient_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

        unread.append(loss.detach())
        done = step + 1
        stopping = stop_requested() and done < job.steps
        saving = stopping or (done % job.checkpoint_every_steps == 0 and done < job.steps)
        now = time.monotonic()
        if saving or done == job.steps or done == first + 1 or now - reported_at >= _REPORT_EVERY_S:
            # Reading a loss makes a GPU wait for it, so they are read together, and not at every step.
            losses = torch.stack(unread).tolist()
            mean = sum(losses) / len(losses)
            if not math.isfinite(mean):
                msg = (
                    f"the loss became {mean} by step {done}; start the tune again with a lower learning_rate than "
                    f"{p.learning_rate:g}"
                )
                raise NotFiniteError(msg)
            speed = len(losses) / (now - reported_at) if now > reported_at else None
            report(StepReport(step=done, loss=mean, steps_per_second=speed, steps_run=done - first, losses=losses))
            unread.clear()
            reported_at = now
        if saving:
            save(done)
        if not stopping and job.samples_at(done):
            sample(done)
            stopping = saving and stop_requested()
        if stopping:
            return Stopped(steps_run=done - first)
        if saving or done == job.steps:
            # Neither saving nor drawing is training.
            reported_at = time.monotonic()

    report(PhaseReport(phase=Phase.SAVE))
    file = job.output_folder / LORA_FILE
    alpha = p.alpha or p.rank
    header = {
        "engine": str(job.engine),
        "base_sha256": job.base_sha256,
        "shape_class": job.shape_class,
        "trigger_word": job.trigger_word,
        "rank": str(p.rank),
        "alpha": f"{alpha:g}",
        "tune_id": job.tune_id,
        "steps": str(job.steps),
        "seed": str(job.seed),
    }
    write_lora(file, modules, header)
    return Trained(file=str(file), steps_run=job.steps - first)


@torch.no_grad()
def encode_picture(base: Base, job: Job, file: Path, caption: str) -> Example:
    """Read, bucket and encode a training image. Raises BadImageError."""
    pixels = load_picture(file, job.parameters.resolution, base.divisor_px).to(base.device)
    vae = base.pipeline.vae
    latents = vae.encode(pixels[None]).latent_dist
    shift, scale = vae.config.shift_factor or 0.0, vae.config.scaling_factor
    # Contiguous, as a checkpoint gives them back: the layout decides in which order sums are taken, and so the last bits.
    return Example(((latents.mean[0] - shift) * scale).contiguous(), (latents.std[0] * scale).contiguous(), caption)


def batch_loss(
    base: Base, batch: list[Example], shares: list[float], captions: Captions, p: Parameters, noise: torch.Generator
) -> torch.Tensor:
    """Return the summed loss of the examples, each by its share; one forward pass for each size of picture among them."""
    total = torch.zeros((), device=base.device)
    for size in sorted({tuple(example.mean.shape) for example in batch}):
        members = [(example, share) for example, share in zip(batch, shares, strict=True) if tuple(example.mean.shape) == size]
        shape = (len(members), *size)

        def normal(shape: tuple[int, ...] = shape) -> torch.Tensor:
            return torch.randn(shape, generator=noise).to(base.device)

        mean = torch.stack([example.mean for example, _ in members])
        latents = mean + torch.stack([example.deviation for example, _ in members]) * normal()
        added_noise = normal()
        timesteps = torch.randint(0, base.noise.config["num_train_timesteps"], shape[:1], generator=noise).to(base.device)
        unsaid = torch.rand(shape[:1], generator=noise) < p.caption_dropout
        said = captions(["" if dropped else example.caption for (example, _), dropped in zip(members, unsaid, strict=True)])
        height_px, width_px = (side * base.pipeline.vae_scale_factor for side in size[1:])
        with torch.autocast(base.device.type, torch.bfloat16, enabled=base.device.type == "cuda"):
            predicted = base.pipeline.unet(
                base.noise.add_noise(latents, added_noise, timesteps).contiguous(memory_format=torch.channels_last),
                timesteps,
                said.hidden,
                added_cond_kwargs=added_conditions(base, said, height_px, width_px),
            ).sample
        wanted = target(base.noise, latents, added_noise, timesteps)
        errors = (predicted.float() - wanted).square().mean(dim=(1, 2, 3))
        weights = min_snr_weights(base.noise, timesteps, p.min_snr_gamma)
        total = total + (errors * weights * torch.tensor([share for _, share in members], device=base.device)).sum()
    return total
