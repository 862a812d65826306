"""Checkpoints with the published configurations of SD 1.5 and SDXL and random weights, in half precision."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from shared.engines import Engine
from shared.formats import single_file
from shared.formats.clip import tokenizer

CONFIGURATIONS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("published.json").read_bytes())
_ENCODERS = {
    Engine.SD15: {"text_encoder": ("SD15_TE", CLIPTextModel)},
    Engine.SDXL: {"text_encoder": ("SDXL_TE1", CLIPTextModel), "text_encoder_2": ("SDXL_TE2", CLIPTextModelWithProjection)},
}
_PIPELINES = {Engine.SD15: "StableDiffusionPipeline", Engine.SDXL: "StableDiffusionXLPipeline"}


@contextmanager
def made_in(dtype: torch.dtype) -> Generator[None]:
    """Make weights in this precision: a model made in another one and converted needs both at once."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def unet(engine: Engine) -> UNet2DConditionModel:
    """Return the UNet, in the default precision."""
    return UNet2DConditionModel(**CONFIGURATIONS[f"{engine.name}_UNET"]).eval()


def vae(engine: Engine) -> AutoencoderKL:
    """Return the VAE, in the default precision."""
    return AutoencoderKL(**CONFIGURATIONS[f"{engine.name}_VAE"]).eval()


def save(engine: Engine, folder: Path) -> None:
    """Write a checkpoint as a folder in diffusers' layout, in float16."""
    torch.manual_seed(0)
    index: dict[str, Any] = {"_class_name": _PIPELINES[engine], "scheduler": ["diffusers", "DDIMScheduler"]}
    with made_in(torch.float16):
        for name, made in (("unet", unet), ("vae", vae)):
            model = made(engine)
            model.save_pretrained(folder / name)
            index[name] = ["diffusers", type(model).__name__]
        for name, (part, kind) in _ENCODERS[engine].items():
            encoder = kind(CLIPTextConfig(**CONFIGURATIONS[part]))
            encoder.save_pretrained(folder / name)
            index[name] = ["transformers", kind.__name__]
            reader = name.replace("text_encoder", "tokenizer")
            tokenizer.write_for(folder / reader, json.loads((folder / name / "config.json").read_bytes()))
            index[reader] = ["transformers", "CLIPTokenizer"]
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(single_file.schedule()))
    (folder / "model_index.json").write_text(json.dumps(index))
