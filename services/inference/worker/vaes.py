"""Loads a VAE file that replaces a checkpoint's own VAE."""

import json
import tempfile
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from shared.errors import InvalidError
from shared.formats.vae import VaeLayout, read_vae


def load_vae(path: Path, base: AutoencoderKL, *, device: torch.device, dtype: torch.dtype) -> AutoencoderKL:
    """Load a VAE of either layout for a checkpoint whose own VAE is `base`.

    Latents are scaled as in `base`, because the checkpoint's UNet was trained on that scale. Raises InvalidError for a file
    that is not a VAE, or whose latents have other channels or cover other areas than the checkpoint's.
    """
    info = read_vae(path)
    wanted = (base.config.latent_channels, 2 ** (len(base.config.block_out_channels) - 1))
    if (info.latent_channels, info.factor) != wanted:
        msg = (
            f"vae: the file has {info.latent_channels} latent channels of {info.factor} px a side, but the checkpoint needs "
            f"{wanted[0]} channels of {wanted[1]} px; choose another VAE"
        )
        raise InvalidError(msg, loc=("body", "vae"))
    config = info.config | {"_class_name": "AutoencoderKL", "scaling_factor": base.config.scaling_factor}
    # diffusers reads a configuration only from a folder, and weights in its own layout only from the same folder.
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "config.json").write_text(json.dumps(config))
        if info.layout is VaeLayout.DIFFUSERS:
            (folder / "diffusion_pytorch_model.safetensors").symlink_to(path.resolve())
            vae = AutoencoderKL.from_pretrained(folder, torch_dtype=dtype, local_files_only=True, use_safetensors=True)
        else:
            vae = AutoencoderKL.from_single_file(str(path), config=scratch, torch_dtype=dtype, local_files_only=True)
    return vae.to(device).eval().requires_grad_(requires_grad=False)
