"""An estimate of a tune's time and memory, from measurements.

Time: the speed of the tunes that this server has trained on bases of the same shape, and the time that they took besides the
steps. Before there are any: the measured speed of a small checkpoint on two CPU cores, or, for SD 1.5 and SDXL, the time of the
arithmetic alone on an H100, which is a lower bound. Memory: process, base, activations and adapter on a GPU. `docs/api.md` has
the figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from pydantic import BaseModel

from shared.database.tables import Asset, Tune
from shared.engines import Engine
from shared.tunes.memory import SMALL_PX, activation_bytes
from shared.tunes.options import CLASS_BATCH_SIZE, default_parameters

_GIB = 2**30
_SMALL_STEP_S = 0.05
"""200 steps of a 64 px checkpoint, with four images in each, took 10.4 s on two idle CPU cores."""
_SMALL_BESIDES_S = 6.0
_LARGE_TFLOP = {Engine.SD15: (1.72, 512), Engine.SDXL: (14.19, 1024)}
"""TFLOP of a step for each image in it, and the side in pixels of the image that was counted."""
_H100_TFLOP_PER_S = 790.0
"""What an H100 reaches in matrix products alone."""
_PROCESS_GIB = 0.9
"""What the training process takes of a GPU beside the base, activations and adapter."""
_ADAPTER_PARAMETERS = {Engine.SD15: 0.2e6, Engine.SDXL: 1.45e6}
"""Trainable parameters for each unit of rank."""
_BYTES_A_PARAMETER = {"adamw": 16, "adafactor": 9}
"""Weight, gradient and moments in fp32; of the second moment, adafactor keeps only rows and columns."""


class Estimate(BaseModel):
    """What a tune would take; `basis` names the source of the time."""

    seconds: float
    memory_bytes: int
    basis: str


@dataclass(frozen=True)
class _Load:
    """The images of a step, class images included, and the side in pixels of a square as large as each."""

    images: int
    resolution_px: int

    @property
    def pixels(self) -> int:
        return self.images * self.resolution_px**2


def estimate(base: Asset, steps: int, chosen: dict[str, Any], past: Sequence[Tune]) -> Estimate:
    """Return the estimate; `past` are tunes of the same shape that this server trained without an interruption."""
    engine, native_px = Engine(base.data["engine"]), base.data["native_size_px"]
    load = _load(engine, native_px, chosen)
    seconds, basis = _seconds(engine, native_px, load, steps, past)
    activations = activation_bytes(engine, load.images, load.resolution_px)
    rank = chosen.get("rank") or default_parameters(engine, native_px)["rank"]
    adapter = rank * _ADAPTER_PARAMETERS[engine] * _BYTES_A_PARAMETER[chosen.get("optimizer") or "adamw"]
    memory = int(_PROCESS_GIB * _GIB + base.size_bytes + activations + adapter)
    return Estimate(seconds=round(seconds, 1), memory_bytes=memory, basis=basis)


def _seconds(engine: Engine, native_px: int, load: _Load, steps: int, past: Sequence[Tune]) -> tuple[float, str]:
    measured = [(tune, tune.steps_per_second) for tune in past if tune.steps_per_second]
    if measured:
        s_per_pixel = [1 / speed / _load(engine, native_px, tune.parameters).pixels for tune, speed in measured]
        besides = [max(0.0, _took_s(tune) - tune.steps / speed) for tune, speed in measured]
        seconds = median(besides) + steps * median(s_per_pixel) * load.pixels
        return seconds, f"the last {len(measured)} tunes of this shape on this server"
    if native_px < SMALL_PX:
        usual = _load(engine, native_px, {})
        return _SMALL_BESIDES_S + steps * _SMALL_STEP_S * load.pixels / usual.pixels, "a small checkpoint on two CPU cores"
    tflop, side_px = _LARGE_TFLOP[engine]
    seconds = steps * tflop * load.images * (load.resolution_px / side_px) ** 2 / _H100_TFLOP_PER_S
    return seconds, "a lower bound, the arithmetic alone on an H100: this server has trained no tune of this shape yet"


def _took_s(tune: Tune) -> float:
    assert tune.started_at is not None and tune.trained_at is not None  # noqa: S101, PT018 - the query asks for trained tunes
    return (tune.trained_at - tune.started_at).total_seconds()


def _load(engine: Engine, native_px: int, chosen: dict[str, Any]) -> _Load:
    complete = default_parameters(engine, native_px) | {name: value for name, value in chosen.items() if value is not None}
    return _Load(complete["batch_size"] + CLASS_BATCH_SIZE, complete["resolution"])
