"""The names of modules in LoRA files, and the one name that each has here: diffusers' for the UNet, transformers' for CLIP.

A name may have any of the prefixes below, dots or underscores between its parts (kohya-ss has underscores), and for the UNet
diffusers' names or those of Stable Diffusion's releases (`input_blocks`, ...). The parts of all names are known, so underscores
are no obstacle: a name is compared with dots and underscores alike.
"""

import re
from enum import StrEnum


class Part(StrEnum):
    """A model of a checkpoint, as diffusers names it."""

    UNET = "unet"
    TEXT_ENCODER = "text_encoder"
    TEXT_ENCODER_2 = "text_encoder_2"


class KeyFormat(StrEnum):
    """The naming of a LoRA's tensors."""

    DIFFUSERS = "diffusers"
    PEFT = "peft"
    KOHYA = "kohya"
    COMFYUI = "comfyui"


_PEFT_PREFIX = "base_model.model."
_PREFIXES: dict[str, tuple[Part, KeyFormat]] = {
    "unet.": (Part.UNET, KeyFormat.DIFFUSERS),
    "text_encoder.": (Part.TEXT_ENCODER, KeyFormat.DIFFUSERS),
    "text_encoder_2.": (Part.TEXT_ENCODER_2, KeyFormat.DIFFUSERS),
    # OneTrainer's.
    "clip_l.transformer.": (Part.TEXT_ENCODER, KeyFormat.COMFYUI),
    "clip_g.transformer.": (Part.TEXT_ENCODER_2, KeyFormat.COMFYUI),
    "clip_l.": (Part.TEXT_ENCODER, KeyFormat.DIFFUSERS),
    "clip_g.": (Part.TEXT_ENCODER_2, KeyFormat.DIFFUSERS),
    "diffusion_model.": (Part.UNET, KeyFormat.COMFYUI),
    "model.diffusion_model.": (Part.UNET, KeyFormat.COMFYUI),
    "text_encoders.clip_l.transformer.": (Part.TEXT_ENCODER, KeyFormat.COMFYUI),
    "text_encoders.clip_g.transformer.": (Part.TEXT_ENCODER_2, KeyFormat.COMFYUI),
    "cond_stage_model.transformer.": (Part.TEXT_ENCODER, KeyFormat.COMFYUI),
    "conditioner.embedders.0.transformer.": (Part.TEXT_ENCODER, KeyFormat.COMFYUI),
    **{
        f"lora_{short}{separator}": (part, KeyFormat.KOHYA)
        for short, part in (
            ("unet", Part.UNET),
            ("te", Part.TEXT_ENCODER),
            ("te1", Part.TEXT_ENCODER),
            ("te2", Part.TEXT_ENCODER_2),
        )
        for separator in "_."
    },
    "lycoris_": (Part.UNET, KeyFormat.KOHYA),
}

_INNER = r"(?:attn[12]_(?:processor_)?to_(?:q|k|v|out(?:_0)?)|norm[123]|ff_net_0_proj|ff_net_2)"  # of a transformer block
_RESNET = r"norm1|conv1|time_emb_proj|norm2|conv2|conv_shortcut"
_UNET = re.compile(
    r"(?P<block>(?:down|up)_blocks_\d{1,2}|mid_block)_(?:"
    rf"resnets_(?P<resnet>\d{{1,2}})_(?P<layer>{_RESNET})"
    r"|attentions_(?P<attention>\d{1,2})_(?:(?P<outer>norm|proj_in|proj_out)"
    rf"|transformer_blocks_(?P<transformer>\d{{1,2}})_(?P<inner>{_INNER}))"
    r"|(?P<sampler>downsamplers|upsamplers)_0_conv)"
    r"|(?P<single>conv_in|conv_norm_out|conv_out)"
    r"|(?P<embedding>time_embedding|add_embedding)_(?P<linear>linear_[12]|cond_proj)"
)
_TEXT = re.compile(
    r"(?:text_model_)?(?:encoder_layers_(?P<layer>\d{1,2})_"
    r"(?:self_attn_(?:(?P<projection>[qkv]|out)_proj|to_(?P<old>[qkv]|out))|mlp_(?P<mlp>fc[12])|(?P<norm>layer_norm[12]))"
    r"|(?P<final>final_layer_norm))|(?P<text_projection>text_projection)"
)
_RELEASED = re.compile(r"(?P<side>input_blocks|output_blocks)_(?P<number>\d{1,2})_(?P<place>\d)_?(?P<rest>.*)")
_RELEASED_MIDDLE = re.compile(r"middle_block_(?P<place>[012])_(?P<rest>.*)")
RELEASED_SINGLES = {
    "input_blocks_0_0": "conv_in",
    "out_0": "conv_norm_out",
    "out_2": "conv_out",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}
RELEASED_RESNET = {
    "in_layers_0": "norm1",
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_0": "norm2",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}


def part_of(name: str) -> tuple[Part | None, KeyFormat, str]:
    """Return the part that a module's name in a file belongs to, None where it does not say, the naming, and the rest of it."""
    rest = name.removeprefix(_PEFT_PREFIX)
    for prefix, (part, key_format) in _PREFIXES.items():
        if rest.startswith(prefix):
            return part, key_format if rest == name else KeyFormat.PEFT, rest.removeprefix(prefix)
    return None, KeyFormat.PEFT, rest


def unet_module(name: str, resnets: int) -> str | None:
    """Return diffusers' name of a module of the UNet, None for an unknown one.

    `resnets` is the number of residual blocks of each level (`layers_per_block`), which numbers the blocks of the releases.
    """
    flat = name.replace(".", "_")
    found = _UNET.fullmatch(_from_release(flat, resnets) or flat)
    if found is None:
        return None
    if found["single"]:
        return found["single"]
    if found["embedding"]:
        return f"{found['embedding']}.{found['linear']}"
    block = re.sub(r"_(?=\d)", ".", found["block"])
    if found["resnet"]:
        return f"{block}.resnets.{found['resnet']}.{found['layer']}"
    if found["sampler"]:
        return f"{block}.{found['sampler']}.0.conv"
    attention = f"{block}.attentions.{found['attention']}"
    if found["outer"]:
        return f"{attention}.{found['outer']}"
    return f"{attention}.transformer_blocks.{found['transformer']}.{_inner(found['inner'])}"


def text_module(name: str) -> str | None:
    """Return the name of a module of a text encoder, without `text_model.`, None for an unknown one."""
    found = _TEXT.fullmatch(name.replace(".", "_"))
    if found is None:
        return None
    if found["text_projection"] or found["final"]:
        return found["text_projection"] or found["final"]
    layer = f"encoder.layers.{found['layer']}"
    if found["mlp"]:
        return f"{layer}.mlp.{found['mlp']}"
    return f"{layer}.{found['norm']}" if found["norm"] else f"{layer}.self_attn.{found['projection'] or found['old']}_proj"


def _inner(flat: str) -> str:
    if flat.startswith("attn"):
        attention, _, layer = flat.replace("processor_", "").partition("_")
        return f"{attention}.{'to_out.0' if layer.startswith('to_out') else layer}"
    return {"ff_net_0_proj": "ff.net.0.proj", "ff_net_2": "ff.net.2"}.get(flat, flat)


def _from_release(flat: str, resnets: int) -> str | None:
    """Return diffusers' name for one of Stable Diffusion's releases, None for any other name."""
    if flat in RELEASED_SINGLES:
        return RELEASED_SINGLES[flat]
    if found := _RELEASED_MIDDLE.fullmatch(flat):
        inner = "attentions_0" if found["place"] == "1" else f"resnets_{int(found['place']) // 2}"
        return f"mid_block_{inner}_{_layer(found['rest'])}"
    found = _RELEASED.fullmatch(flat)
    if found is None:
        return None
    number, place, rest = int(found["number"]), found["place"], found["rest"]
    is_input = found["side"] == "input_blocks"
    # Block 0 of the input is `conv_in`. A level of the input ends with a block that only halves the size.
    level, layer = divmod(number - is_input, resnets + 1)
    if number < is_input:
        return None
    block = f"{'down' if is_input else 'up'}_blocks_{level}"
    if is_input and layer == resnets:
        return f"{block}_downsamplers_0_conv" if (place, rest) == ("0", "op") else None
    if not is_input and rest == "conv" and place in "12":
        return f"{block}_upsamplers_0_conv" if layer == resnets else None
    if place not in "01":
        return None
    return f"{block}_{('resnets', 'attentions')[int(place)]}_{layer}_{_layer(rest)}"


def _layer(rest: str) -> str:
    return RELEASED_RESNET.get(rest, rest)
