"""The training recipe, from top to bottom: a LoRA on Stable Diffusion 1.5 or SDXL, from a few images and their captions."""

import contextlib
import math
from collections.abc import Callable

import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import cast_training_params

from services.trainer.engine import optimizers
from services.trainer.engine.base import leave_device, load_base, pick_device
from services.trainer.engine.cache import encode_image
from services.trainer.engine.config import Job, Phase
from services.trainer.engine.diffusion import Row, StepLoss
from services.trainer.engine.errors import NotFiniteError, OutOfMemoryError
from services.trainer.engine.export import write_lora
from services.trainer.engine.fit import fit
from services.trainer.engine.meter import LossMeter
from services.trainer.engine.network import adapted_layers, add_adapters
from services.trainer.engine.order import batch_indices, generator
from services.trainer.engine.prior import class_examples, generate_class_latents
from services.trainer.engine.reports import CheckpointReport, PhaseReport, Report, Result, Stopped, Trained
from services.trainer.engine.samples import generate_samples
from services.trainer.engine.state import load_state, read_class_latents, save_state
from services.trainer.engine.text import Captions
from shared.formats.clip.captions import class_prompt
from shared.tunes.options import Prior

LORA_FILE = "lora.safetensors"
_FIRST_LOSS_SCALE = 2.0**16


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
            f"the device has too little memory for batch_size {p.batch_size} at {p.resolution} px and rank "
            f"{p.rank}; lower them, or run the trainer on a larger device"
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
    fitted = fit(job, device)
    base = load_base(job, device)

    # Encode the images once, since the VAE is not trained, and the captions once unless the text encoders are trained.
    alive(Phase.CACHE)
    encoded = [encode_image(base, job, image) for image in job.images]
    examples = [example for example, image in zip(encoded, job.images, strict=True) if not image.regularization]
    prior_examples = [example for example, image in zip(encoded, job.images, strict=True) if image.regularization]
    prompts = [class_prompt(example.caption, job.trigger_word) for example in examples]
    texts = {image.caption for image in job.images} | set(prompts) | {""}
    text_is_fixed = p.text_encoder_learning_rate == 0
    base_captions = Captions(base, texts, fixed=True, clip_skip=p.clip_skip)
    captions = base_captions if text_is_fixed else Captions(base, texts, fixed=False, clip_skip=p.clip_skip)

    # Make the prior, which keeps the base from forgetting the class: the base's own output for the class prompts, the account's
    # images of the class, or images that the base generates in the sizes of the training images. A resumed run reads the
    # generated ones from its checkpoint.
    alive(Phase.PRIOR)
    class_latents: list[torch.Tensor] = []
    if p.prior is Prior.BASE_OUTPUT:
        prior_examples = [example._replace(caption=prompt) for example, prompt in zip(examples, prompts, strict=True)]
    elif p.prior is Prior.CLASS_IMAGES and not prior_examples:
        if job.resume_from:
            class_latents = [latents.to(device) for latents in read_class_latents(job.resume_from)]
        else:
            pairs = list(zip(prompts, (tuple(example.mean.shape[1:]) for example in examples), strict=True))
            wanted = [pairs[number % len(pairs)] for number in range(p.class_images)]
            class_latents = generate_class_latents(base, wanted, p, job.seed, lambda: alive(Phase.PRIOR))
        prior_examples = class_examples(base, class_latents, prompts)

    # Add the trainable part. The adapters are fp32 also in a base of half precision, which would round small updates away.
    alive(Phase.TRAIN)
    modules, weights = add_adapters(base, p, job.seed)
    cast_training_params(list(modules.values()), torch.float32)
    leave_device(base, base.unused_in_steps(text_is_fixed=text_is_fixed))
    if fitted.checkpointing:
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
    first, loss_scale = load_state(job.resume_from, weights, optimizer) if job.resume_from else (0, _FIRST_LOSS_SCALE)
    # Gradients of fp16 weights are too small for fp16 unless the loss is scaled (Micikevicius et al. 2018).
    scaler = torch.amp.GradScaler(device.type, init_scale=loss_scale, enabled=base.dtype is torch.float16)

    # Train. Each step's batch and noise depend on seed and step alone, so a resumed run repeats what an uninterrupted one does.
    loss_of = StepLoss(base, captions, base_captions, adapted_layers(base.pipeline.unet), p, fitted.rows_at_once)
    meter = LossMeter(first)
    report(PhaseReport(phase=Phase.FIRST_STEP))
    for step in range(first, job.steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor_at(step)

        # The loss is the mean over the training images, plus the weighted mean over the rows of the prior.
        indices = batch_indices(job.seed, "image", step, size=len(examples), count=p.batch_size)
        batch = [Row(examples[index], 1.0 / p.batch_size) for index in indices]
        if prior_examples:
            indices = batch_indices(job.seed, "class", step, size=len(prior_examples), count=p.prior_batch_size)
            share, of_base = p.prior_weight / p.prior_batch_size, p.prior is Prior.BASE_OUTPUT
            batch += [Row(prior_examples[index], share, of_base) for index in indices]
        loss = torch.zeros((), device=device)
        for part in loss_of(batch, generator(job.seed, "step", step)):
            scaler.scale(part).backward()
            loss += part.detach()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(list(weights.values()), p.max_gradient_norm)
        scaler.step(optimizer)
        scaler.update()
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
            save_state(file, done, weights, optimizer, class_latents, loss_scale=scaler.get_scale())
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
        "prior": str(p.prior),
    }
    if p.clip_skip:
        header["clip_skip"] = str(p.clip_skip)
    write_lora(file, modules, header)
    return Trained(file=str(file), steps_run=job.steps - first)
