"""The modules of the published checkpoints, with the shapes of their weights: what a LoRA made elsewhere must fit."""

from collections.abc import Iterable
from functools import cache
from math import prod

from shared.engines import Engine
from shared.formats import ldm_layout
from shared.formats.ldm_layout import Shapes, TextShape, UNetShape
from shared.formats.lora.adapters import Adapter, Kind
from shared.formats.lora.keys import Factor
from shared.formats.lora.names import Part, text_module, unet_module

RESNETS = 2
"""Residual blocks of each level."""
_UNETS = {
    Engine.SD15: UNetShape(4, (320, 640, 1280, 1280), RESNETS, (1, 1, 1, 0), 1, 768, None, linear=False),
    Engine.SDXL: UNetShape(4, (320, 640, 1280), RESNETS, (0, 2, 10), 10, 2048, 2816, linear=True),
}
_CLIP = TextShape(49408, 77, 768, 3072, 12)
_OPEN_CLIP = TextShape(49408, 77, 1280, 5120, 32)

Modules = dict[tuple[Part, str], dict[str, tuple[int, ...]]]
"""For each module, the shapes of its `weight` and, where it has one, its `bias`."""


@cache
def modules(engine: Engine) -> Modules:
    """Return the modules of the published checkpoint of SD 1.5 or SDXL."""
    found: Modules = {}
    _add(found, Part.UNET, ldm_layout.unet(_UNETS[engine]))
    _add(found, Part.TEXT_ENCODER, ldm_layout.clip(_CLIP))
    if engine is Engine.SDXL:
        second = ldm_layout.clip(_OPEN_CLIP) | {"text_projection.weight": (_OPEN_CLIP.width, _OPEN_CLIP.width)}
        _add(found, Part.TEXT_ENCODER_2, second)
    return found


def misfit(adapters: Iterable[Adapter], engine: Engine) -> str | None:
    """Return why a LoRA does not fit the published checkpoint of an engine; None if it fits."""
    known = modules(engine)
    for adapter in adapters:
        shapes = known.get((adapter.part, adapter.module))
        name = min(adapter.factors.values())[:200]
        if shapes is None:
            return f"{name!r} is for {adapter.part}.{adapter.module}, which it does not have"
        weight = shapes["weight"]
        wanted = (weight[0], prod(weight[1:]))
        # The weight of a norm is no matrix: only its values themselves can be changed.
        is_possible = len(weight) > 1 or adapter.kind is Kind.DIFF
        if adapter.size is not None and (adapter.size != wanted or not is_possible):
            rows, columns = adapter.size
            return (
                f"{name!r} changes a weight of {rows} x {columns}; {adapter.part}.{adapter.module} has {wanted[0]} x {wanted[1]}"
            )
        for factor in (Factor.DIFF_BIAS, Factor.UP_BIAS):
            if factor in adapter.shapes and adapter.shapes[factor] != shapes.get("bias"):
                return f"{adapter.factors[factor][:200]!r} does not fit the bias of {adapter.part}.{adapter.module}"
        magnitude = adapter.shapes.get(Factor.MAGNITUDE)
        if magnitude is not None and prod(magnitude) not in weight[:2]:
            return f"{adapter.factors[Factor.MAGNITUDE][:200]!r} does not fit the weight of {adapter.part}.{adapter.module}"
    return None


def _add(found: Modules, part: Part, shapes: Shapes) -> None:
    for name, shape in shapes.items():
        module, _, parameter = name.rpartition(".")
        canonical = unet_module(module, RESNETS) if part is Part.UNET else text_module(module)
        # Token embeddings are no modules that a LoRA may change.
        if canonical is not None:
            found.setdefault((part, canonical), {})[parameter] = shape
