"""Removes the noise from latents with a UNet, step by step, as diffusers' pipelines do it.

The UNet runs in its own precision. Latents, guidance and sampler are in float32: in half precision, the small change of each of
many steps would be rounded away.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.pipelines.latent_consistency_models.pipeline_latent_consistency_text2img import LatentConsistencyModelPipeline
from diffusers.utils.torch_utils import randn_tensor

from services.inference.worker.steps import Steps
from shared.errors import InvalidError
from shared.models import samplers
from shared.models.checkpoints import Components

_AESTHETIC_IDS = 5
"""Numbers that a refiner is told: two sizes and a score. SDXL's base is told six."""
_SCORE, _NEGATIVE_SCORE = 6.0, 2.5


@dataclass(frozen=True)
class Schedule:
    """A sampler that is ready to run, and its timesteps. It has state, so each pass needs its own."""

    scheduler: Any
    timesteps: torch.Tensor
    extra: dict[str, Any]
    """Arguments for each of its steps."""


@dataclass(frozen=True)
class Guide:
    """A ControlNet, the image [1, channels, height, width] that it follows, its strength, and its share of the steps."""

    model: Any
    image: torch.Tensor
    scale: float
    end: float


@dataclass(frozen=True)
class Kept:
    """What inpainting keeps: the image's latents, and the noise on them, wherever the mask is 0."""

    mask: torch.Tensor
    latents: torch.Tensor
    noise: torch.Tensor


@dataclass(frozen=True)
class Pass:
    """One pass of a checkpoint's UNet over the noise."""

    components: Components
    text: dict[str, torch.Tensor]
    """What `text.encode` returns; without a negative prompt, there is no guidance."""
    guidance: float
    size: tuple[int, int]
    """Width and height in pixels."""
    guide: Guide | None = None


def schedule(
    components: Components,
    sampler: str,
    steps: int,
    *,
    strength: float | None = None,
    since: float | None = None,
    until: float | None = None,
) -> Schedule:
    """Return the sampler at its first step.

    `strength` starts an image later, the less of it is redrawn. `since` and `until` cut the schedule at a share of the noise, for
    a refiner and the base before it.
    """
    scheduler = samplers.make(sampler, components.scheduler_folder, steps)
    scheduler.set_timesteps(steps, device=components.unet.device)
    known = inspect.signature(scheduler.step).parameters
    extra = {name: value for name, value in samplers.pipeline_options(sampler).items() if name in known}
    timesteps = scheduler.timesteps
    range_ = scheduler.config.num_train_timesteps
    first = 0
    if since is not None:
        left = int((timesteps < round(range_ - since * range_)).sum())
        # A sampler of second order has each timestep but the highest twice, and must not begin with the second.
        left += scheduler.order == 2 and left % 2 == 0  # noqa: PLR2004 - the order
        first = len(timesteps) - left
    elif strength is not None:
        first = max(steps - min(int(steps * strength), steps), 0) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    timesteps = timesteps[first:]
    if until is not None:
        timesteps = timesteps[: int((timesteps >= round(range_ - until * range_)).sum())]
    return Schedule(scheduler, timesteps, extra)


def noise(shape: tuple[int, int, int], generators: Sequence[torch.Generator], device: torch.device) -> torch.Tensor:
    """Return noise for latents of this shape, one with each generator. It is made on the CPU, as on every device."""
    return randn_tensor((len(generators), *shape), generator=list(generators), device=device, dtype=torch.float32)


def denoise(
    course: Pass,
    plan: Schedule,
    latents: torch.Tensor,
    generators: Sequence[torch.Generator],
    steps: Steps,
    kept: Kept | None = None,
) -> torch.Tensor:
    """Return the latents [images, channels, height, width] without the noise. Raises what the hook of `steps` raises.

    Raises InvalidError if they are not finite.
    """
    scheduler, count = plan.scheduler, len(latents)
    extra = dict(plan.extra)
    if "generator" in inspect.signature(scheduler.step).parameters:
        extra["generator"] = list(generators)
    predict = _predictor(course, count)
    for number, timestep in enumerate(plan.timesteps):
        share = (number + 1) / len(plan.timesteps)
        predicted = predict(scheduler.scale_model_input(latents, timestep), timestep, share)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False, **extra)[0]
        if kept is not None:
            latents = _with_kept(latents, kept, scheduler, plan.timesteps[number + 1 : number + 2])
        steps.did(latents)
    if not latents.isfinite().all():
        msg = "the drawn latents are not finite; lower the weights of the LoRAs or cfg_scale, or choose another checkpoint"
        raise InvalidError(msg)
    return latents


def _predictor(course: Pass, count: int) -> Any:
    """Return the function that predicts the noise of `count` latents, with guidance if the text has a negative side."""
    unet, text, guide = course.components.unet, course.text, course.guide
    is_guided = "negative_prompt_embeds" in text
    sides = ("negative_", "") if is_guided else ("",)
    embeds = torch.cat([text[f"{side}prompt_embeds"].expand(count, -1, -1) for side in sides]).to(unet.dtype)
    conditions: dict[str, Any] = {"encoder_hidden_states": embeds}
    if "pooled_prompt_embeds" in text:
        pooled = torch.cat([text[f"{side}pooled_prompt_embeds"].expand(count, -1) for side in sides])
        ids = torch.cat([_time_ids(course, pooled.shape[-1], is_negative=bool(side)).expand(count, -1) for side in sides])
        conditions["added_cond_kwargs"] = {"text_embeds": pooled.to(unet.dtype), "time_ids": ids.to(unet.device)}
    own: dict[str, Any] = {}
    if (width := unet.config.time_cond_proj_dim) is not None:
        # A UNet that was distilled with guidance is told its scale (Luo et al. 2023).
        scale = torch.full((count * len(sides),), course.guidance - 1)
        embedded: Any = LatentConsistencyModelPipeline.get_guidance_scale_embedding
        own["timestep_cond"] = embedded(None, scale, width).to(unet.device, unet.dtype)

    def predict(latents: torch.Tensor, timestep: torch.Tensor, share: float) -> torch.Tensor:
        doubled = torch.cat([latents] * len(sides)).to(unet.dtype)
        following = _following(guide, doubled, timestep, conditions, share) if guide else {}
        predicted = unet(doubled, timestep, return_dict=False, **conditions, **own, **following)[0].float()
        if not is_guided:
            return predicted
        unwanted, wanted = predicted.chunk(2)
        return unwanted + course.guidance * (wanted - unwanted)

    return predict


def _following(guide: Guide, latents: torch.Tensor, timestep: torch.Tensor, conditions: dict[str, Any], share: float) -> Any:
    """Return what a ControlNet adds inside the UNet at this share of the steps."""
    if share > guide.end:
        return {}
    image = guide.image.to(latents.device, guide.model.dtype).expand(len(latents), -1, -1, -1)
    down, middle = guide.model(
        latents, timestep, controlnet_cond=image, conditioning_scale=guide.scale, return_dict=False, **conditions
    )
    return {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}


def _time_ids(course: Pass, pooled_width: int, *, is_negative: bool) -> torch.Tensor:
    """Return what SDXL is told of the image: its original size, its crop and its size; for a refiner, a score as the last."""
    unet: Any = course.components.unet
    taken = (unet.config.projection_class_embeddings_input_dim - pooled_width) // unet.config.addition_time_embed_dim
    size = (course.size[1], course.size[0])
    last = (_NEGATIVE_SCORE if is_negative else _SCORE,) if taken == _AESTHETIC_IDS else size
    return torch.tensor([[*size, 0, 0, *last]], dtype=torch.float32)


def _with_kept(latents: torch.Tensor, kept: Kept, scheduler: Any, following: torch.Tensor) -> torch.Tensor:
    """Put the original back where nothing is painted, with the noise of the step that follows."""
    original = scheduler.add_noise(kept.latents, kept.noise, following) if len(following) else kept.latents
    return (1 - kept.mask) * original + kept.mask * latents
