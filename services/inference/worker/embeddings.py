"""Textual inversions: vectors that stand for a word of the prompt (Gal et al. 2022)."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from shared.errors import InvalidError
from shared.formats.embedding import vectors_of
from shared.models.checkpoints import Components


def load(word: str, path: Path, components: Components) -> list[torch.Tensor]:
    """Return the vectors (number, width) that stand for a trigger word, one tensor for each text encoder.

    Raises InvalidError for a file that was made for other text encoders.
    """
    tensors = load_file(path)
    vectors = [torch.atleast_2d(tensors[name]) for name in vectors_of(tensors)]
    widths = [encoder.config.hidden_size for encoder in components.text_encoders]
    found = [vector.shape[-1] for vector in vectors]
    if found != widths:
        made_for, needed = (" and ".join(map(str, some)) for some in (found, widths))
        msg = (
            f"textual_inversions: the vectors for {word!r} are {made_for} wide; the checkpoint's text encoders need {needed}; "
            "choose a textual inversion that was made for this checkpoint"
        )
        raise InvalidError(msg, loc=("body", "textual_inversions"))
    return vectors
