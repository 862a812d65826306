"""Writes a checkpoint as one file in the layout of Stable Diffusion's own releases: the inverse of diffusers' conversion."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from shared.engines import Engine
from shared.formats import ldm_shapes
from shared.formats import vae as vae_files
from shared.formats.checkpoint import TEXT_ENCODERS
from shared.formats.safetensors import with_ordered_metadata
from shared.models import samplers
from shared.models.checkpoints import Components, load

_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ARCHITECTURES = {
    Engine.SD15: "stable-diffusion-v1",
    Engine.SDXL: "stable-diffusion-xl-v1-base",
    Engine.SDXL_REFINER: "stable-diffusion-xl-v1-refiner",
}
"""The names of the engines in ModelSpec."""
_BLOCK = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_OPEN_CLIP = {
    "text_model.embeddings.token_embedding.": "token_embedding.",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.": "ln_final.",
    "text_projection.weight": "text_projection",
    "text_model.encoder.layers.": "transformer.resblocks.",
    ".self_attn.": ".attn.",
    ".layer_norm1.": ".ln_1.",
    ".layer_norm2.": ".ln_2.",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
}


def export_folder(folder: Path, target: Path) -> None:
    """Write a checkpoint's folder as one file. Raises InvalidError if the folder is no checkpoint."""
    export(load(folder, device=torch.device("cpu"), dtype=torch.float16), target)


def export(components: Components, target: Path) -> None:
    """Write a loaded checkpoint as one file, in half precision. The same weights always give the same bytes."""
    engine = components.info.engine
    tensors = {f"{ldm_shapes.UNET}{name}": tensor for name, tensor in unet_tensors(components.unet).items()}
    tensors |= {f"{vae_files.PREFIX}{name}": tensor for name, tensor in vae_tensors(components.vae).items()}
    first, last = components.text_encoders[0], components.text_encoders[-1]
    if engine in ldm_shapes.CLIP:
        for name, tensor in first.state_dict().items():
            # transformers 5.6 flattened CLIPTextModel, but files keep the older names.
            tensors[f"{ldm_shapes.CLIP[engine]}text_model.{name.removeprefix('text_model.')}"] = tensor
    if engine in ldm_shapes.OPEN_CLIP:
        tensors |= {f"{ldm_shapes.OPEN_CLIP[engine]}{name}": tensor for name, tensor in open_clip_tensors(last).items()}
    halves = {name: tensor.to("cpu", torch.float16).contiguous() for name, tensor in tensors.items()}
    draft = target.with_name(f"{target.name}.draft")
    draft.write_bytes(with_ordered_metadata(save(halves, metadata(components))))
    draft.replace(target)


def metadata(components: Components) -> dict[str, str]:
    """Return what cannot be read from the tensors' shapes, under ModelSpec's keys and our own."""
    info, unet = components.info, components.unet.config
    predicts_v = samplers.make("DDIM", components.scheduler_folder).config.prediction_type == "v_prediction"
    heads = unet.attention_head_dim
    found = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": _ARCHITECTURES[info.engine],
        "modelspec.prediction_type": "v" if predicts_v else "epsilon",
        "modelspec.resolution": f"{info.native_size_px}x{info.native_size_px}",
        "tunesmith.unet.attention_head_dim": ",".join(map(str, heads if isinstance(heads, list | tuple) else [heads])),
        "tunesmith.unet.norm_num_groups": str(unet.norm_num_groups),
        vae_files.GROUPS_KEY: str(components.vae.config.norm_num_groups),
        "tunesmith.vae.scaling_factor": f"{components.vae.config.scaling_factor:.16f}",
    }
    for part, encoder in zip(TEXT_ENCODERS[info.engine], components.text_encoders, strict=True):
        found[f"tunesmith.{part}.num_attention_heads"] = str(encoder.config.num_attention_heads)
        found[f"tunesmith.{part}.hidden_act"] = encoder.config.hidden_act
    if info.engine is not Engine.SD15:
        found["tunesmith.force_zeros_for_empty_prompt"] = "true" if components.zeros_for_empty_prompt else "false"
    return found


def unet_tensors(unet: Any) -> dict[str, torch.Tensor]:
    """Return a UNet's weights under their names in the original layout."""
    blocks = unet.config.layers_per_block + 1
    attends = [bool(getattr(block, "attentions", None)) for block in unet.up_blocks]
    return {_unet_name(name, blocks, attends): tensor for name, tensor in unet.state_dict().items()}


def vae_tensors(vae: Any) -> dict[str, torch.Tensor]:
    """Return a VAE's weights under their names in the original layout, with its attention as 1 x 1 convolutions."""
    levels = len(vae.config.block_out_channels)
    named = {vae_files.original_name(name, levels): tensor for name, tensor in vae.state_dict().items()}
    return {
        name: tensor[:, :, None, None] if ".attn_1." in name and tensor.ndim > 1 else tensor for name, tensor in named.items()
    }


def open_clip_tensors(encoder: Any) -> dict[str, torch.Tensor]:
    """Return a text encoder's weights under open_clip's names, with query, key and value in one matrix."""
    found: dict[str, torch.Tensor] = {}
    weights = encoder.state_dict()
    for name, tensor in weights.items():
        renamed = name
        for theirs, original in _OPEN_CLIP.items():
            renamed = renamed.replace(theirs, original)
        if ".q_proj." in name:
            three = [weights[name.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            found[renamed.replace(".q_proj.", ".in_proj_")] = torch.cat(three)
        elif ".k_proj." not in name and ".v_proj." not in name:
            found[renamed] = tensor.T if renamed == "text_projection" else tensor
    return found


def _unet_name(name: str, blocks: int, attends: list[bool]) -> str:
    module, _, end = name.rpartition(".")
    if module in _UNET_ENDS:
        return f"{_UNET_ENDS[module]}.{end}"
    if name.startswith("mid_block."):
        _, kind, number, rest = name.split(".", 3)
        return "middle_block.1." + rest if kind == "attentions" else f"middle_block.{2 * int(number)}.{_residual(rest)}"
    found = _BLOCK.fullmatch(name)
    if found is None:
        msg = f"{name}: unknown in Stable Diffusion's layout"
        raise ValueError(msg)
    half, level, kind, number, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
    # Input block 0 is the convolution before all levels.
    side, first = ("input_blocks", 1) if half == "down_blocks" else ("output_blocks", 0)
    first += level * blocks
    match kind:
        case "resnets":
            return f"{side}.{first + number}.0.{_residual(rest)}"
        case "attentions":
            return f"{side}.{first + number}.1.{rest}"
        case "downsamplers":
            return f"{side}.{first + blocks - 1}.0.{rest.replace('conv.', 'op.')}"
        case _:
            return f"{side}.{first + blocks - 1}.{2 if attends[level] else 1}.{rest}"


def _residual(rest: str) -> str:
    module, end = rest.rsplit(".", 1)
    return f"{_RESIDUAL[module]}.{end}"
