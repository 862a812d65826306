"""Textual inversions inside a LoRA file: `bundle_emb.NAME...`, as OneTrainer and AUTOMATIC1111's web UI have them.

NAME is the word of the prompt that the vectors stand for.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from shared.errors import InvalidError
from shared.formats.lora.names import Part
from shared.formats.safetensors import Tensor

_NAME = re.compile(
    r"bundle_emb\.(?P<word>[^\x00-\x20\x7f\ud800-\udfff]{1,200}?)\.(?P<tensor>emb_params|clip_l|clip_g|string_to_param\.[^.]+)"
)
_MAX_VECTORS, _MAX_WIDTH = 64, 2048


@dataclass(frozen=True)
class Bundle:
    """A textual inversion: its word, and its tensor for each text encoder."""

    word: str
    tensors: Mapping[Part, str]

    @property
    def names(self) -> list[str]:
        """The names of its tensors."""
        return list(self.tensors.values())


def split(tensors: Mapping[str, Tensor]) -> tuple[list[Bundle], list[str]]:
    """Return the textual inversions of a file, and the names of its other tensors. Raises InvalidError for a broken one."""
    found: dict[str, dict[Part, str]] = defaultdict(dict)
    rest: list[str] = []
    for name, tensor in tensors.items():
        if not name.startswith("bundle_emb."):
            rest.append(name)
            continue
        key = _NAME.fullmatch(name)
        shape = [1, *tensor.shape][-2:]
        if key is None or len(tensor.shape) not in {1, 2} or not (1 <= shape[0] <= _MAX_VECTORS and 1 <= shape[1] <= _MAX_WIDTH):
            msg = (
                f"the LoRA's {name[:200]!r} with the shape {tensor.shape} is no textual inversion that can be read; save the "
                "LoRA without it, and upload it as an asset of the type textual_inversion"
            )
            raise InvalidError(msg)
        found[key["word"]][Part.TEXT_ENCODER_2 if key["tensor"] == "clip_g" else Part.TEXT_ENCODER] = name
    return [Bundle(word, parts) for word, parts in found.items()], rest
