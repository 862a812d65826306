"""Textual inversions: vectors that stand for a word of the prompt (Gal et al. 2022)."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from shared.errors import InvalidError
from shared.models.checkpoints import Components


def load(path: Path, components: Components) -> list[torch.Tensor]:
    """Return the vectors (number, width) for each of the checkpoint's text encoders.

    Raises InvalidError for a file that was made for other text encoders.
    """
    tensors = load_file(path)
    vectors = [torch.atleast_2d(tensors[name]) for name in sorted(tensors, key=lambda name: name == "clip_g")]
    widths = [encoder.config.hidden_size for encoder in components.text_encoders]
    found = [vector.shape[-1] for vector in vectors]
    if found != widths:
        msg = f"textual_inversions: vectors {found} wide do not fit the checkpoint, whose text encoders are {widths} wide"
        raise InvalidError(msg, loc=("body", "textual_inversions"))
    return vectors
