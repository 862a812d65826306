"""How long a tune takes and how much memory it needs, from what was measured: here, or else by us.

Time: the tunes that were trained here on a base of the same shape, their speed and what they took beside the steps. Where there
are none yet, figures of ours: a small checkpoint on two CPU cores; for the large ones the arithmetic alone on an H100, which is
a floor. Memory: base, activations and adapter on a GPU, as `docs/api.md` shows.
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
"""200 steps of a 64 px checkpoint, four pictures each, took 10.4 s on two idle CPU cores."""
_SMALL_REST_S = 6.0
_LARGE_TFLOP = {Engine.SD15: (1.72, 512), Engine.SDXL: (14.19, 1024)}
"""Of a step with one picture, and the size that was counted at."""
_H100_TFLOP_PER_S = 790.0
_PROCESS_GIB = 0.9
_ADAPTER_PARAMETERS = {Engine.SD15: 0.2e6, Engine.SDXL: 1.45e6}
"""A unit of rank."""
_BYTES_A_PARAMETER = {"adamw": 16, "adafactor": 9}
"""Weight, gradient and moments in fp32; adafactor keeps rows and columns of the second moment alone."""


class Estimate(BaseModel):
    """What a tune would take; `basis` says what the time was derived from."""

    seconds: float
    memory_bytes: int
    basis: str


@dataclass(frozen=True)
class _Load:
    """What decides how much a step computes."""

    pictures: int
    resolution_px: int

    @property
    def pixels(self) -> int:
        return self.pictures * self.resolution_px**2


def estimate(base: Asset, base_bytes: int, steps: int, chosen: dict[str, Any], past: Sequence[Tune]) -> Estimate:
    """Estimate a tune; `past` are tunes of the same shape that were trained here without an interruption."""
    engine, native_px = Engine(base.data["engine"]), base.data["native_size_px"]
    load = _load(engine, native_px, chosen)
    seconds, basis = _seconds(engine, native_px, load, steps, past)
    activations = activation_bytes(engine, load.pictures, load.resolution_px)
    rank = chosen.get("rank") or default_parameters(engine, native_px)["rank"]
    adapter = rank * _ADAPTER_PARAMETERS[engine] * _BYTES_A_PARAMETER[chosen.get("optimizer") or "adamw"]
    memory = int(_PROCESS_GIB * _GIB + base_bytes + activations + adapter)
    return Estimate(seconds=round(seconds, 1), memory_bytes=memory, basis=basis)


def _seconds(engine: Engine, native_px: int, load: _Load, steps: int, past: Sequence[Tune]) -> tuple[float, str]:
    measured = [(tune, tune.steps_per_second) for tune in past if tune.steps_per_second]
    if measured:
        speeds = [1 / speed / _load(engine, native_px, tune.parameters).pixels for tune, speed in measured]
        rests = [max(0.0, _took_s(tune) - tune.steps / speed) for tune, speed in measured]
        seconds = median(rests) + steps * median(speeds) * load.pixels
        return seconds, f"the last {len(measured)} tunes of this shape here"
    if native_px < SMALL_PX:
        usual = _load(engine, native_px, {})
        return _SMALL_REST_S + steps * _SMALL_STEP_S * load.pixels / usual.pixels, "a small checkpoint on two CPU cores"
    tflop, side_px = _LARGE_TFLOP[engine]
    seconds = steps * tflop * load.pictures * (load.resolution_px / side_px) ** 2 / _H100_TFLOP_PER_S
    return seconds, "a floor: the arithmetic alone on an H100; no tune of this shape was trained here yet"


def _took_s(tune: Tune) -> float:
    assert tune.started_at is not None and tune.trained_at is not None  # noqa: S101, PT018 - asked for so
    return (tune.trained_at - tune.started_at).total_seconds()


def _load(engine: Engine, native_px: int, chosen: dict[str, Any]) -> _Load:
    complete = default_parameters(engine, native_px) | {name: value for name, value in chosen.items() if value is not None}
    return _Load(complete["batch_size"] + CLASS_BATCH_SIZE, complete["resolution"])
