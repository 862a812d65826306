"""LoRA files of every layout, and the same changes merged by hand into a copy of a checkpoint."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from services.inference.worker.materials import LoraFile
from shared.models.checkpoints import Components

Tensors = dict[str, torch.Tensor]
BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
ATTENTION = [f"unet.{BLOCK}.attn1.to_q", f"unet.{BLOCK}.attn2.to_k", f"unet.{BLOCK}.attn1.to_out.0"]
LINEAR = [*ATTENTION, f"unet.{BLOCK}.ff.net.0.proj", f"unet.{BLOCK}.ff.net.2", "unet.mid_block.resnets.1.time_emb_proj"]
CONVOLUTIONS = ["unet.down_blocks.0.downsamplers.0.conv", "unet.mid_block.resnets.0.conv1", f"unet.{BLOCK[:26]}.proj_in"]
TEXT = ["text_encoder.encoder.layers.0.self_attn.q_proj", "text_encoder.encoder.layers.1.mlp.fc1"]
SECOND = ["text_encoder_2.encoder.layers.1.self_attn.out_proj", "text_encoder_2.text_projection"]


def find(components: Components, place: str) -> Any:
    """Return the module with a canonical name."""
    part, _, name = place.partition(".")
    number = {"text_encoder": 0, "text_encoder_2": 1}.get(part)
    root = components.unet if number is None else components.text_encoders[number]
    inner = "text_model." if number is not None and hasattr(root, "text_model") and name.startswith("encoder.") else ""
    return root.get_submodule(inner + name)


def factors(
    components: Components, places: list[str], *, seed: int = 0, rank: int = 3
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return random `down` and `up` for modules; each has a rank of its own."""
    chance = torch.Generator().manual_seed(seed)
    made: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for number, place in enumerate(places):
        weight = find(components, place).weight
        down = torch.randn(rank + number, *weight.shape[1:], generator=chance)
        up = torch.randn(weight.shape[0], rank + number, *(1 for _ in weight.shape[2:]), generator=chance)
        made[place] = (down * 0.3, up * 0.3)
    return made


def merged(components: Components, changes: Mapping[str, torch.Tensor]) -> Components:
    """Return a copy of the checkpoint with changes added to its parameters, by their canonical names."""
    changed = copy.deepcopy(components)
    with torch.no_grad():
        for place, change in changes.items():
            module, _, parameter = place.rpartition(".")
            getattr(find(changed, module), parameter).add_(change)
    return changed


def products(made: Mapping[str, tuple[torch.Tensor, torch.Tensor]], scales: Callable[[int], float] = lambda _: 1.0) -> Tensors:
    """Return up x down as changes for `merged`; `scales` gives the scale for a rank."""
    return {
        f"{place}.weight": (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:]) * scales(down.shape[0])
        for place, (down, up) in made.items()
    }


def outputs(components: Components) -> list[torch.Tensor]:
    """Return what the text encoders and the UNet compute for fixed inputs."""
    chance = torch.Generator().manual_seed(7)
    unet: Any = components.unet
    with torch.no_grad():
        texts = [encoder(torch.arange(3, 19)[None], output_hidden_states=True) for encoder in components.text_encoders]
        features = torch.cat([text.hidden_states[-1] for text in texts], dim=-1)
        added = {}
        if len(texts) > 1:
            added = {"added_cond_kwargs": {"text_embeds": texts[1].text_embeds, "time_ids": torch.ones(1, 6)}}
        latents = torch.randn(1, 4, 16, 16, generator=chance)
        drawn = unet(latents, torch.tensor(500), features, **added).sample
    return [*(text.hidden_states[-1] for text in texts), *(text.text_embeds for text in texts[1:]), drawn]


def is_same(some: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.allclose(one, other, rtol=1e-4, atol=1e-4) for one, other in zip(some, others, strict=True))


def write(
    folder: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None, *, weight: float = 1.0
) -> LoraFile:
    """Write a LoRA file whose name is its content's."""
    place = folder / f"{len(list(folder.iterdir()))}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, place, metadata)
    return LoraFile("mine", f"{place}", place, weight)


def flat(place: str, **prefixes: str) -> str:
    """Return kohya-ss's name: `lora_unet_...` and `lora_te_text_model_...`."""
    part, _, name = place.partition(".")
    prefix = {"unet": "lora_unet", "text_encoder": "lora_te", "text_encoder_2": "lora_te2"} | prefixes
    level = "text_model." if name.startswith("encoder.") else ""
    return f"{prefix[part]}_{(level + name).replace('.', '_')}"


def released(place: str) -> str:
    """Return the name in Stable Diffusion's releases, for the modules above of a UNet with one residual block a level."""
    name = place.removeprefix("unet.")
    for ours, theirs in {
        "down_blocks.1.attentions.0": "input_blocks.3.1",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
        "mid_block.resnets.0.conv1": "middle_block.0.in_layers.2",
        "mid_block.resnets.1.time_emb_proj": "middle_block.2.emb_layers.1",
    }.items():
        name = name.replace(ours, theirs)
    return name
