"""ControlNets, described by their configuration, without torch.

A ControlNet (Zhang et al. 2023) is a folder in diffusers' layout, with `config.json` and the weights, packed into one tar like
other checkpoints. It is a copy of the first half of a UNet, and fits the checkpoints whose UNet has that shape.
"""

from typing import Any, TypeGuard, cast

from pydantic import BaseModel

from shared.engines import Engine
from shared.errors import InvalidError

CONFIG = "config.json"
CLASS = "ControlNetModel"
_MAX_LEVELS, _MAX_WIDTH = 8, 65_536
_ADDED = {None: Engine.CONTROLNET_SD15, "text_time": Engine.CONTROLNET_SDXL}


class ControlNetInfo(BaseModel):
    """What the configuration tells of a ControlNet."""

    engine: Engine
    cross_attention_dim: int
    """The width of the text features, as in its checkpoints."""
    block_out_channels: list[int]
    """The channels of each level, from the finest to the coarsest, as in its checkpoints' UNets."""

    @property
    def data(self) -> dict[str, Any]:
        """The fields of an asset's `data` besides the engine."""
        return self.model_dump(exclude={"engine"})


def describe(config: dict[str, Any]) -> ControlNetInfo:
    """Describe a ControlNet by its `config.json`. Raises InvalidError that says what is missing or wrong."""
    if config.get("_class_name") != CLASS:
        msg = f"{CONFIG}: _class_name {str(config.get('_class_name'))[:100]!r} is not {CLASS}"
        raise InvalidError(msg)
    added = config.get("addition_embed_type")
    width, channels = config.get("cross_attention_dim"), config.get("block_out_channels")
    is_known = isinstance(added, str | None) and added in _ADDED
    if not is_known or not _is_count(width) or not _are_counts(channels):
        msg = (
            f"{CONFIG}: cross_attention_dim must be a number from 1 to {_MAX_WIDTH}, block_out_channels a list of 1 to "
            f"{_MAX_LEVELS} such numbers and addition_embed_type null (SD 1.5) or text_time (SDXL): they tell the engine, and "
            "which checkpoints it fits"
        )
        raise InvalidError(msg)
    return ControlNetInfo(engine=_ADDED[added], cross_attention_dim=width, block_out_channels=channels)


def _are_counts(value: object) -> TypeGuard[list[int]]:
    if not isinstance(value, list):
        return False
    items = cast("list[object]", value)
    return 1 <= len(items) <= _MAX_LEVELS and all(map(_is_count, items))


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MAX_WIDTH
