"""VAEs that stand in for a checkpoint's own."""

from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import load_file

from shared.errors import InvalidError
from shared.vae_files import PREFIX, VaeLayout, read_vae


def load(path: Path, device: torch.device, dtype: torch.dtype) -> AutoencoderKL:
    """Load a VAE file of either layout. Raises InvalidError for a file that is none."""
    info = read_vae(path)
    vae = AutoencoderKL(**info.config)
    weights = load_file(path)
    if info.layout is VaeLayout.ORIGINAL:
        weights = convert_ldm_vae_checkpoint({PREFIX + name.removeprefix(PREFIX): w for name, w in weights.items()}, vae.config)
    vae.load_state_dict(weights)
    return vae.to(device, dtype).eval().requires_grad_(requires_grad=False)


def stand_in(vae: Any, name: str, own: Any, checkpoint: str) -> None:
    """Make a VAE one that can be used in the place of a checkpoint's own. Raises InvalidError unless their latents match."""
    shapes = [(len(one.config.block_out_channels), one.config.latent_channels) for one in (vae, own)]
    if shapes[0] != shapes[1]:
        (levels, channels), (own_levels, own_channels) = shapes
        msg = (
            f"vae: {name} has {channels} latent channels at 1/{2 ** (levels - 1)} of the size and does not fit the checkpoint "
            f"{checkpoint}, whose own has {own_channels} at 1/{2 ** (own_levels - 1)}"
        )
        raise InvalidError(msg, loc=("body", "vae"))
    # The UNet was trained on latents scaled like this, whichever VAE they come from.
    vae.register_to_config(scaling_factor=own.config.scaling_factor)
