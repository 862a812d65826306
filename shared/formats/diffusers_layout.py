"""The names and shapes of the tensors in diffusers' layout, computed from a part's configuration.

Each is `shared.formats.ldm_layout`'s under diffusers' name. diffusers fills weights that are missing with random numbers when it
loads a part, without an error.
"""

import re
from typing import Any, TypeGuard, cast

from shared.errors import InvalidError
from shared.formats import ldm_layout
from shared.formats.ldm_layout import Shapes, TextShape, UNetShape

_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_PLAIN = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_MAX_LEVELS, _MAX_WIDTH, _MAX_COUNT = 8, 65_536, 64


def unet(config: dict[str, Any]) -> Shapes | None:
    """Return a UNet's tensors; None for a UNet that is built otherwise than those of SD 1.5 and SDXL, such as SSD's."""
    _check_bounds(config)
    channels, blocks = config.get("block_out_channels"), config.get("down_block_types")
    resnets, context = config.get("layers_per_block", 2), config.get("cross_attention_dim")
    depth = config.get("transformer_layers_per_block", 1)
    if not _are_counts(channels) or not isinstance(blocks, list) or len(cast("list[Any]", blocks)) != len(channels):
        return None
    depths = [depth] * len(channels) if _is_count(depth) else depth
    if not _are_counts(depths) or len(depths) != len(channels) or not _is_count(resnets) or not _is_count(context):
        return None
    added = config.get("projection_class_embeddings_input_dim")
    is_usual = config.get("mid_block_type", "UNetMidBlock2DCrossAttn") == "UNetMidBlock2DCrossAttn" and all(
        kind in {"CrossAttnDownBlock2D", "DownBlock2D"} for kind in cast("list[Any]", blocks)
    )
    if not is_usual or config.get("class_embed_type") or not _is_count(config.get("in_channels", 4)):
        return None
    shape = UNetShape(
        in_channels=config.get("in_channels", 4),
        channels=tuple(channels),
        resnets=resnets,
        depths=tuple(
            depth if kind == "CrossAttnDownBlock2D" else 0 for depth, kind in zip(depths, cast("list[str]", blocks), strict=True)
        ),
        # diffusers gives the middle as many as the last level, even if that has none.
        middle_depth=depths[-1],
        context=context,
        added=added if config.get("addition_embed_type") == "text_time" and _is_count(added) else None,
        linear=config.get("use_linear_projection") is True,
    )
    return {_unet_name(name, shape): sides for name, sides in ldm_layout.unet(shape).items()}


def _check_bounds(config: dict[str, Any]) -> None:
    """Raise InvalidError for more layers than any UNet has: building them would take all of a worker's memory."""
    for key in ("layers_per_block", "transformer_layers_per_block"):
        if (most := _largest(config.get(key, 1))) > _MAX_COUNT:
            msg = f"unet/config.json: {key} is {most}; at most {_MAX_COUNT} is allowed"
            raise InvalidError(msg)


def _largest(value: object) -> int:
    if isinstance(value, list):
        return max(map(_largest, cast("list[object]", value)), default=0)
    return value if isinstance(value, int) else 0


def _unet_name(name: str, shape: UNetShape) -> str:
    """Return diffusers' name of a UNet's tensor from its name in the original layout."""
    for start, theirs in _PLAIN.items():
        if name.startswith(f"{start}."):
            return _inner_name(theirs + name.removeprefix(start))
    kind, number, place, rest = name.split(".", 3)
    if kind == "input_blocks":
        # A level has its residual blocks and a downsampler; the very first block is `conv_in`.
        level, index = divmod(int(number) - 1, shape.resnets + 1)
        if rest.startswith("op."):
            return f"down_blocks.{level}.downsamplers.0.conv.{rest.removeprefix('op.')}"
        return _inner_name(f"down_blocks.{level}.{'resnets' if place == '0' else 'attentions'}.{index}.{rest}")
    level, index = divmod(int(number), shape.resnets + 1)
    if rest.startswith("conv."):
        return f"up_blocks.{level}.upsamplers.0.{rest}"
    return _inner_name(f"up_blocks.{level}.{'resnets' if place == '0' else 'attentions'}.{index}.{rest}")


def _inner_name(name: str) -> str:
    if ".resnets." not in name:
        return name
    return re.sub(r"(in_layers|emb_layers|out_layers)\.\d|skip_connection", lambda found: _RESIDUAL[found[0]], name)


def text_encoder(config: dict[str, Any], *, has_projection: bool) -> Shapes:
    """Return a text encoder's tensors with transformers' names. Raises InvalidError for a configuration out of bounds."""
    keys = ("vocab_size", "max_position_embeddings", "hidden_size", "intermediate_size", "num_hidden_layers")
    defaults = {"vocab_size": 49_408, "max_position_embeddings": 77}
    values = [config.get(key, defaults.get(key)) for key in keys]
    if not all(map(_is_count, values)) or values[-1] > _MAX_COUNT:
        msg = (
            f"a text encoder's config.json needs {', '.join(keys)} as numbers of at most {_MAX_WIDTH}, and at most {_MAX_COUNT} "
            "layers"
        )
        raise InvalidError(msg)
    found = ldm_layout.clip(TextShape(*values))
    width, projected = values[2], config.get("projection_dim", values[2])
    return found | ({"text_projection.weight": (projected, width)} if has_projection else {})


def _are_counts(value: object) -> TypeGuard[list[int]]:
    if not isinstance(value, list):
        return False
    items = cast("list[object]", value)
    return 1 <= len(items) <= _MAX_LEVELS and all(map(_is_count, items))


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MAX_WIDTH
