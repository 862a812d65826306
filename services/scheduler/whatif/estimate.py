"""An estimate of a tune's time and memory, from measurements.

Time: the speed of the tunes that this server has trained on bases of the same shape, and the time that they took besides the
steps. Before there are any: the measured speed of a small checkpoint on two CPU cores, or, for SD 1.5 and SDXL, the time of the
arithmetic alone on an H100, which is a lower bound. Memory: what `shared/tunes/memory.py` counts, by which the trainer
decides too. `docs/api.md` has the figures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from pydantic import BaseModel

from services.scheduler.checks import load_of, prior_of
from services.scheduler.schemas import Details
from shared.database.tables import Asset, Tune
from shared.engines import Engine
from shared.tunes import memory
from shared.tunes.memory import SMALL_PX
from shared.tunes.options import Prior, default_parameters, prior_batch_size

_SMALL_STEP_S = 0.05
"""200 steps of a 64 px checkpoint, with four images in each, took 10.4 s on two idle CPU cores."""
_SMALL_BESIDES_S = 6.0
_LARGE_TFLOP = {Engine.SD15: (1.72, 512), Engine.SDXL: (14.19, 1024)}
"""TFLOP of a step for each image in it, and the side in pixels of the image that was counted."""
_H100_TFLOP_PER_S = 790.0
"""What an H100 reaches in matrix products alone."""
_BASE_OUTPUT_ROW = 4 / 3
"""A row whose target is the base's own output takes one more forward pass: a third of the forward and backward pass."""
_DRAWING_ROWS = 24 * 15 * 2 / 3
"""Class images: 24 of 15 sampler steps with guidance, counted as rows of training steps."""


class Estimate(BaseModel):
    """What a tune would take; `basis` names the source of the time."""

    seconds: float
    memory_bytes: int
    least_memory_bytes: int
    """With recomputed activations and one image at a time, which the trainer chooses before it refuses."""
    basis: str


@dataclass(frozen=True)
class _Work:
    """The arithmetic of a tune, as pixels that pass through the UNet forward and backward: in each step, and before all steps."""

    of_step: float
    before: float


def estimate(details: Details, base: Asset, past: Sequence[Tune]) -> Estimate:
    """Return the estimate; `past` are tunes of the same shape that this server trained without an interruption."""
    engine, native_px = Engine(base.data["engine"]), base.data["native_size_px"]
    load, own_images = load_of(details, base), len(details.subjects) < len(details.files)
    chosen = details.model_dump(include={"batch_size", "resolution"}, exclude_none=True)
    work = _work(native_px, chosen, prior_of(details), own_images=own_images)
    seconds, basis = _seconds(engine, native_px, work, details.steps, past)
    least = replace(load, checkpointing=True, rows_at_once=1)
    return Estimate(
        seconds=round(seconds, 1),
        memory_bytes=memory.need(load).total,
        least_memory_bytes=memory.need(least).total,
        basis=basis,
    )


def _seconds(engine: Engine, native_px: int, work: _Work, steps: int, past: Sequence[Tune]) -> tuple[float, str]:
    measured = [(tune, tune.steps_per_second) for tune in past if tune.steps_per_second]
    if measured:
        s_per_pixel = [1 / speed / _past_work(native_px, tune.parameters).of_step for tune, speed in measured]
        besides = [max(0.0, _took_s(tune) - tune.steps / speed) for tune, speed in measured]
        seconds = median(besides) + steps * median(s_per_pixel) * work.of_step
        return seconds, f"the last {len(measured)} tunes of this shape on this server"
    pixels = steps * work.of_step + work.before
    if native_px < SMALL_PX:
        usual = _past_work(native_px, {})
        return _SMALL_BESIDES_S + _SMALL_STEP_S * pixels / usual.of_step, "a small checkpoint on two CPU cores"
    tflop, side_px = _LARGE_TFLOP[engine]
    seconds = tflop * pixels / side_px**2 / _H100_TFLOP_PER_S
    return seconds, "a lower bound, the arithmetic alone on an H100: this server has trained no tune of this shape yet"


def _work(native_px: int, chosen: Mapping[str, Any], prior: Prior, *, own_images: bool = False) -> _Work:
    complete: dict[str, Any] = {**default_parameters(native_px), **chosen}
    images, area = complete["batch_size"], complete["resolution"] ** 2
    rows = {Prior.NONE: 0.0, Prior.BASE_OUTPUT: _BASE_OUTPUT_ROW, Prior.CLASS_IMAGES: 1.0}[prior] * prior_batch_size(images)
    draws = prior is Prior.CLASS_IMAGES and not own_images
    return _Work((images + rows) * area, _DRAWING_ROWS * area if draws else 0.0)


def _past_work(native_px: int, parameters: Mapping[str, Any]) -> _Work:
    return _work(native_px, parameters, Prior(parameters.get("prior", Prior.BASE_OUTPUT)))


def _took_s(tune: Tune) -> float:
    assert tune.started_at is not None and tune.trained_at is not None  # noqa: S101, PT018 - the query asks for trained tunes
    return (tune.trained_at - tune.started_at).total_seconds()
