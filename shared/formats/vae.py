"""VAE files, described by their safetensors headers, without torch.

There are two layouts: diffusers' (`encoder.down_blocks.0.resnets.0.conv1.weight`) and that of Stable Diffusion's own releases
(`encoder.down.0.block.0.conv1.weight`, maybe with the prefix `first_stage_model.`). The configuration follows from the shapes,
except for the number of groups of the normalisations: it is 32, as in all releases, unless the metadata has another number.
"""

import math
import re
from collections.abc import Mapping
from enum import StrEnum
from itertools import takewhile
from typing import Any

from pydantic import BaseModel

from shared.errors import InvalidError
from shared.formats import ldm_layout, mistaken
from shared.formats.files import Source
from shared.formats.ldm_layout import Shapes, VaeShape
from shared.formats.safetensors import Header, data_type, read_header

PREFIX = "first_stage_model."
GROUPS_KEY = "tunesmith.vae.norm_num_groups"
_GROUPS = 32
_MAX_LEVELS, _MAX_RESNETS, _MAX_WIDTH, _MAX_LATENT = 6, 4, 1024, 16
_PARTS = {
    ".resnets.": ".block.",
    ".downsamplers.0.": ".downsample.",
    ".upsamplers.0.": ".upsample.",
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
}
_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"} | {
    # The names that diffusers used until 2023; most files still have them.
    "query": "q",
    "key": "k",
    "value": "v",
    "proj_attn": "proj_out",
}


class VaeLayout(StrEnum):
    """The naming of a VAE's tensors."""

    DIFFUSERS = "diffusers"
    ORIGINAL = "original"


class VaeInfo(BaseModel):
    """What the header tells of a VAE."""

    layout: VaeLayout
    factor: int
    """Pixels on each side that one latent stands for; it must be that of the checkpoint that the VAE is used with."""
    latent_channels: int
    """These too must be those of the checkpoint."""
    data_type: str
    """`fp16` (bfloat16 counts as it) or `fp32`."""
    config: dict[str, Any]
    """For diffusers' AutoencoderKL. Without `scaling_factor`: the checkpoint has it, because its UNet was trained with it."""


def read_vae(source: Source) -> VaeInfo:
    """Read a VAE file. Raises InvalidError that says why it is not one."""
    mistaken.check(source, "weights")
    header = read_header(source)
    shapes = {name.removeprefix(PREFIX): tuple(tensor.shape) for name, tensor in header.tensors.items()}
    diffusers = any(name.startswith(("encoder.down_blocks.", "decoder.up_blocks.")) for name in shapes)
    if diffusers:
        levels = _count(shapes, "encoder.down_blocks.{}.resnets.0.conv1.weight")
        shapes = {original_name(name, levels): shape for name, shape in shapes.items()}
    shape = check(shapes)
    return VaeInfo(
        layout=VaeLayout.DIFFUSERS if diffusers else VaeLayout.ORIGINAL,
        factor=2 ** (len(shape.channels) - 1),
        latent_channels=shape.latent_channels,
        data_type=weights_type(header, "the VAE's"),
        config=config(shape, header.metadata),
    )


def check(shapes: Shapes) -> VaeShape:
    """Return the shape of the VAE with these tensors, which are named as in the original layout without a prefix.

    Raises InvalidError for a shape out of bounds, and for tensors that differ from those of such a VAE.
    """
    # Attention comes as matrices or as convolutions of 1 x 1. A discriminator and averages are left over from the training.
    shapes = {
        name: shape[:2] if ".attn_1." in name and shape[2:] == (1, 1) else shape
        for name, shape in shapes.items()
        if not name.startswith("loss.") and name != "model_ema.decay"
    }
    shape = _infer(shapes)
    if difference := min(ldm_layout.differences(ldm_layout.vae(shape), shapes), default=None):
        msg = f"it is not a VAE of Stable Diffusion: {difference}"
        raise InvalidError(msg)
    return shape


def _infer(shapes: Shapes) -> VaeShape:
    levels = _count(shapes, "encoder.down.{}.block.0.conv1.weight")
    resnets = _count(shapes, "encoder.down.0.block.{}.conv1.weight")
    latent = shapes.get("decoder.conv_in.weight", (0, 0))
    if not levels or not resnets or len(latent) < 2:  # noqa: PLR2004 - a convolution has more sides
        msg = (
            "it is not a VAE of Stable Diffusion: an encoder and a decoder in diffusers' layout (encoder.down_blocks...) "
            "or in the original one (encoder.down...) are needed"
        )
        raise InvalidError(msg)
    channels = tuple(sum(shapes[f"encoder.down.{level}.block.0.conv1.weight"][:1]) for level in range(levels))
    for what, value, limit in (
        ("levels", levels, _MAX_LEVELS),
        ("residual blocks in a level", resnets, _MAX_RESNETS),
        ("channels", max(channels), _MAX_WIDTH),
        ("latent channels", latent[1], _MAX_LATENT),
    ):
        if not 1 <= value <= limit:
            msg = f"the VAE has {value} {what}; 1 to {limit} are allowed"
            raise InvalidError(msg)
    return VaeShape(
        latent_channels=latent[1],
        channels=channels,
        resnets=resnets,
        middle_attention="encoder.mid.attn_1.q.weight" in shapes,
        quant_convs="quant_conv.weight" in shapes,
    )


def config(shape: VaeShape, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return diffusers' configuration, without `scaling_factor`.

    Raises InvalidError for a number of groups that does not divide the widths.
    """
    common = math.gcd(*shape.channels)
    # Where 32 does not divide the widths, their greatest common divisor is the likeliest number of groups.
    told = metadata.get(GROUPS_KEY, str(_GROUPS if common % _GROUPS == 0 else common))
    if not told.isdecimal() or len(told) > 4 or int(told) < 1 or common % int(told):  # noqa: PLR2004 - as widths have digits
        msg = f"the metadata's {GROUPS_KEY} is {told[:50]!r}; a divisor of the VAE's widths {list(shape.channels)} is needed"
        raise InvalidError(msg)
    levels = len(shape.channels)
    return {
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": list(shape.channels),
        "layers_per_block": shape.resnets,
        "latent_channels": shape.latent_channels,
        "norm_num_groups": int(told),
        "mid_block_add_attention": shape.middle_attention,
        "use_quant_conv": shape.quant_convs,
        "use_post_quant_conv": shape.quant_convs,
        "force_upcast": True,
    }


def original_name(name: str, levels: int) -> str:
    """Return a tensor's name in the original layout, from its name in diffusers'; unknown names stay as they are."""
    name = re.sub(r"\bdown_blocks\.", "down.", name)
    name = re.sub(r"\bup_blocks\.(\d{1,2})\.", lambda found: f"up.{levels - 1 - int(found[1])}.", name)
    name = re.sub(r"\bmid_block\.resnets\.(\d{1,2})\.", lambda found: f"mid.block_{int(found[1]) + 1}.", name)
    for theirs, original in _PARTS.items():
        name = name.replace(theirs, original)
    return re.sub(
        r"mid_block\.attentions\.0\.([a-z_]+(?:\.0)?)\.", lambda found: f"mid.attn_1.{_ATTENTION.get(found[1], found[1])}.", name
    )


def weights_type(header: Header, whose: str) -> str:
    """Return `fp16` or `fp32`, the widest of a file's types; counters, as of training steps, are integers and do not count.

    Raises InvalidError for other types.
    """
    return data_type({tensor.dtype for tensor in header.tensors.values()} - {"I64", "I32"}, whose)


def _count(shapes: Shapes, pattern: str) -> int:
    """Return how many numbers, from 0 on without a gap, make the pattern a tensor's name; at most two above the limit."""
    return sum(1 for _ in takewhile(lambda number: pattern.format(number) in shapes, range(_MAX_LEVELS + 2)))
