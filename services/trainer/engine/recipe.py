"""The training recipe, from top to bottom: a LoRA on Stable Diffusion 1.5 or SDXL, from a few images and their captions."""

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
from services.trainer.engine.errors import NotFiniteError, OutOfMemoryError
from services.trainer.engine.export import write_lora
from services.trainer.engine.images import load_image, shrink
from services.trainer.engine.loss import min_snr_weights, prediction_target
from services.trainer.engine.network import add_adapters, needs_gradient_checkpointing
from services.trainer.engine.order import batch_indices, generator
from services.trainer.engine.prior import generate_class_latents
from services.trainer.engine.reports import CheckpointReport, PhaseReport, Report, Result, StepReport, Stopped, Trained
from services.trainer.engine.samples import generate_samples
from services.trainer.engine.state import load_state, read_class_latents, save_state
from services.trainer.engine.text import Captions, added_conditions
from shared.formats.clip.captions import class_prompt

LORA_FILE = "lora.safetensors"
_REPORT_EVERY_S = 0.25


class Example(NamedTuple):
    """An image in the VAE's latent space, as the mean and deviation [channels, height, width] of its distribution there."""

    mean: torch.Tensor
    deviation: torch.Tensor
    caption: str


class StopRequestedError(Exception):
    """The service asked the training to stop before there was anything to save."""


def train(job: Job, report: Callable[[Report], None], stop_requested: Callable[[], bool]) -> Result:
    """Train the job's LoRA and write it to its folder; when `stop_requested`, write a checkpoint and stop instead.

    On a CPU (fp32) the LoRA has the same bytes however often the training was stopped and resumed. Raises the errors of
    `services.trainer.engine.errors`.
    """
    try:
        return _train(job, report, stop_requested)
    except StopRequestedError:
        return Stopped(steps_run=0)
    except (MemoryError, RuntimeError) as error:
        # torch has an error class for a full GPU; on a CPU it raises a bare RuntimeError.
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        p = job.parameters
        msg = (
            f"the device has too little memory for batch_size {p.batch_size} and class_batch_size {p.class_batch_size} at "
            f"{p.resolution} px and rank {p.rank}; lower them, or run the trainer on a larger device"
        )
        raise OutOfMemoryError(msg) from error


def _train(job: Job, report: Callable[[Report], None], stop_requested: Callable[[], bool]) -> Result:
    p = job.parameters

    def alive(phase: Phase) -> None:
        """Report that training is alive in this phase, or stop at once if asked to: nothing needs saving where this is called."""
        report(PhaseReport(phase=phase))
        if stop_requested():
            raise StopRequestedError

    # Load the base, which stays frozen. On a CPU a resumed run must equal an uninterrupted one in every bit; a GPU may use its
    # faster kernels, which do not repeat their sums in the same order.
    alive(Phase.LOAD)
    device = pick_device(job.device)
    torch.use_deterministic_algorithms(device.type == "cpu")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    base = load_base(job, device)

    # Encode the training images once, since the VAE is not trained, and the captions once unless the text encoders are trained.
    alive(Phase.CACHE)
    if job.shrink_to_px:
        for image in job.images:
            shrink(image.file, job.shrink_to_px)
    examples = [encode_image(base, job, image.file, image.caption) for image in job.images]
    prompts = [class_prompt(example.caption, job.trigger_word) for example in examples]
    text_is_fixed = p.text_encoder_learning_rate == 0
    captions = Captions(base, {image.caption for image in job.images} | set(prompts) | {""}, fixed=text_is_fixed)

    # Generate class images: images in the sizes of the training images, for their captions without the trigger word. Training
    # on both keeps the base from forgetting the class. A resumed run reads them from its checkpoint.
    alive(Phase.PRIOR)
    class_latents: list[torch.Tensor] = []
    if p.class_images and job.resume_from:
        class_latents = [latents.to(device) for latents in read_class_latents(job.resume_from)]
    elif p.class_images:
        pairs = list(zip(prompts, (tuple(example.mean.shape[1:]) for example in examples), strict=True))
        wanted = [pairs[number % len(pairs)] for number in range(p.class_images)]
        class_latents = generate_class_latents(base, wanted, p, job.seed, lambda: alive(Phase.PRIOR))
    class_examples = [
        Example(latents, torch.zeros_like(latents), prompts[number % len(prompts)])
        for number, latents in enumerate(class_latents)
    ]

    # Add the trainable part. The adapters are fp32 also in a bf16 base: bf16 would round small updates away.
    alive(Phase.TRAIN)
    modules, weights = add_adapters(base, p, job.seed, native_size_px=job.native_size_px)
    cast_training_params(list(modules.values()), torch.float32)
    if needs_gradient_checkpointing(base, job):
        base.pipeline.unet.enable_gradient_checkpointing()
    base.pipeline.unet.train()

    # Make the optimizer. The learning rate is a function of the step alone: diffusers' scheduler is only asked for its formula,
    # so it has no state that a resumed run would need.
    groups = [
        {"params": [w for name, w in weights.items() if name.startswith("unet.")], "lr": p.learning_rate},
        {"params": [w for name, w in weights.items() if not name.startswith("unet.")], "lr": p.text_encoder_learning_rate},
    ]
    optimizer = optimizers.make([group for group in groups if group["params"]], p)
    peaks = [group["lr"] for group in optimizer.param_groups]
    warmup_steps = min(p.warmup_steps, job.steps // 10)
    schedule = get_scheduler(p.lr_schedule, optimizer, num_warmup_steps=warmup_steps, num_training_steps=job.steps)
    factor_at = schedule.lr_lambdas[0]
    first = load_state(job.resume_from, weights, optimizer) if job.resume_from else 0

    # Train. Each step's batch and noise depend on seed and step alone, so a resumed run repeats what an uninterrupted one does.
    meter = LossMeter(first)
    for step in range(first, job.steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor_at(step)

        # The loss is the mean over the training images, plus the weighted mean over the class images.
        batch = [examples[i] for i in batch_indices(job.seed, "image", step, size=len(examples), count=p.batch_size)]
        shares = [1.0 / p.batch_size] * p.batch_size
        if class_examples:
            indices = batch_indices(job.seed, "class", step, size=len(class_examples), count=p.class_batch_size)
            batch += [class_examples[i] for i in indices]
            shares += [p.class_weight / p.class_batch_size] * p.class_batch_size
        loss = batch_loss(base, batch, shares, captions, p, generator(job.seed, "step", step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(weights.values()), p.max_gradient_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        meter.add(loss)

        # The last step neither stops nor saves, because the LoRA follows at once.
        done = step + 1
        is_last = done == job.steps
        stopping = stop_requested() and not is_last
        saving = stopping or (done % job.checkpoint_every_steps == 0 and not is_last)
        # The first step is reported at once: it shows that training works.
        if saving or is_last or done == first + 1 or meter.is_due():
            read = meter.read(done)
            if not math.isfinite(read.loss):
                msg = f"the loss is {read.loss} by step {done}; start a new tune with a learning_rate below {p.learning_rate:g}"
                raise NotFiniteError(msg)
            report(read)
        if saving:
            file = job.output_folder / f"checkpoint-{done}.safetensors"
            save_state(file, done, weights, optimizer, class_latents)
            report(CheckpointReport(step=done, file=str(file)))
        if job.samples_at(done) and not stopping:
            # A stop leaves these images out. The checkpoint of this step is already written.
            with contextlib.suppress(StopRequestedError):
                report(generate_samples(base, job, done, lambda: alive(Phase.SAMPLE)))
            report(PhaseReport(phase=Phase.TRAIN))
            stopping = saving and stop_requested()
        if stopping:
            return Stopped(steps_run=done - first)
        if saving:
            # The speed does not count the time that checkpoints and samples take.
            meter.restart_clock()

    # Write the LoRA, with what a reader needs to know about it.
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
def encode_image(base: Base, job: Job, file: Path, caption: str) -> Example:
    """Read a training image, fit it to its bucket, and encode it. Raises BadImageError."""
    pixels = load_image(file, job.parameters.resolution, base.divisor_px).to(base.device)
    vae = base.pipeline.vae
    latents = vae.encode(pixels[None]).latent_dist
    shift, scale = vae.config.shift_factor or 0.0, vae.config.scaling_factor
    # Contiguous, as tensors from a checkpoint are: the memory layout decides the order of sums, and so their last bits.
    return Example(((latents.mean[0] - shift) * scale).contiguous(), (latents.std[0] * scale).contiguous(), caption)


def batch_loss(
    base: Base, batch: list[Example], shares: list[float], captions: Captions, p: Parameters, rng: torch.Generator
) -> torch.Tensor:
    """Return the sum of the examples' losses, each multiplied by its share. Examples of one size share a forward pass."""
    schedule, device = base.noise_schedule, base.device
    total = torch.zeros((), device=device)
    for size in sorted({tuple(example.mean.shape) for example in batch}):
        members = [(example, share) for example, share in zip(batch, shares, strict=True) if tuple(example.mean.shape) == size]
        shape = (len(members), *size)

        # Draw latents from the distribution that the VAE gives for each image.
        mean = torch.stack([example.mean for example, _ in members])
        deviation = torch.stack([example.deviation for example, _ in members])
        latents = mean + deviation * torch.randn(shape, generator=rng).to(device)

        # Run the forward process: add noise up to a timestep that is drawn for each image.
        noise = torch.randn(shape, generator=rng).to(device)
        timesteps = torch.randint(0, schedule.config["num_train_timesteps"], shape[:1], generator=rng).to(device)
        noisy = schedule.add_noise(latents, noise, timesteps).contiguous(memory_format=torch.channels_last)

        # Drop some captions, so that the unconditional side of classifier-free guidance is trained as well.
        dropped = torch.rand(shape[:1], generator=rng) < p.caption_dropout
        text = captions(["" if drop else example.caption for (example, _), drop in zip(members, dropped, strict=True)])
        height_px, width_px = (side * base.pipeline.vae_scale_factor for side in size[1:])

        # Predict, and weight the squared error by timestep and share.
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            predicted = base.pipeline.unet(
                noisy,
                timesteps,
                text.hidden,
                encoder_attention_mask=text.mask,
                added_cond_kwargs=added_conditions(base, text, height_px, width_px),
            ).sample
        errors = (predicted.float() - prediction_target(schedule, latents, noise, timesteps)).square().mean(dim=(1, 2, 3))
        weights = min_snr_weights(schedule, timesteps, p.min_snr_gamma)
        total = total + (errors * weights * torch.tensor([share for _, share in members], device=device)).sum()
    return total


class LossMeter:
    """The losses of the steps since the last report, and the speed of these steps.

    Reading a loss makes the CPU wait until the GPU has finished its step. The losses therefore stay on the device, and are
    read together a few times a second.
    """

    def __init__(self, first: int) -> None:
        self._first = first
        self._losses: list[torch.Tensor] = []
        self._since = time.monotonic()

    def add(self, loss: torch.Tensor) -> None:
        """Take the loss of a step."""
        self._losses.append(loss.detach())

    def is_due(self) -> bool:
        """Return whether the next report should be made."""
        return time.monotonic() - self._since >= _REPORT_EVERY_S

    def read(self, done: int) -> StepReport:
        """Return the report of the steps up to `done`, and begin the next one."""
        losses: list[float] = torch.stack(self._losses).tolist()
        mean = sum(losses) / len(losses)
        took_s = time.monotonic() - self._since
        speed = len(losses) / took_s if took_s > 0 else None
        self._losses.clear()
        self.restart_clock()
        return StepReport(step=done, loss=mean, steps_per_second=speed, steps_run=done - self._first, losses=losses)

    def restart_clock(self) -> None:
        """Measure the speed from now on."""
        self._since = time.monotonic()
