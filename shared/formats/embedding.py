"""What a textual inversion file says of itself, read from its safetensors header without torch.

Layouts: diffusers' (one tensor, named by its trigger word), that of AUTOMATIC1111's web UI (`emb_params`), and for SDXL's two
text encoders `clip_l` and `clip_g`. A tensor holds one vector a row, as wide as the text encoder that it was trained for.
"""

import re
from pathlib import Path

from pydantic import BaseModel

from shared.engines import Engine
from shared.errors import InvalidError
from shared.formats.safetensors import read_header

FIRST, SECOND = "clip_l", "clip_g"
"""The tensors for SDXL's first and second text encoder."""
_UNNAMED = {"emb_params", FIRST, SECOND}
_DATA_TYPES = {"F16": "fp16", "BF16": "fp16", "F32": "fp32"}
_MAX_VECTORS, _MAX_WIDTH = 64, 2048
_WORD = re.compile(r"[^\x00-\x20]{1,200}")


class EmbeddingInfo(BaseModel):
    """What can be said of a textual inversion from its header."""

    engine: Engine
    widths: list[int]
    """Width of the vectors for each text encoder, which must be the checkpoint's: 768 for SD 1.5, 768 and 1280 for SDXL."""
    vectors: int
    """How many of the prompt's tokens it takes."""
    trigger_word: str | None
    """What the file itself is called by; None in layouts that do not say."""
    data_type: str
    """`fp16` (bfloat16 counts as it) or `fp32`."""


def read_embedding(path: Path) -> EmbeddingInfo:
    """Read a textual inversion file. Raises InvalidError that says why it is not one."""
    header = read_header(path)
    tensors = header.tensors
    if len(tensors) != 1 and set(tensors) != {FIRST, SECOND}:
        msg = (
            f"the file holds {len(tensors)} tensors; a textual inversion has one ({{trigger word}} or emb_params) for SD 1.5, or "
            f"{FIRST} and {SECOND} for SDXL"
        )
        raise InvalidError(msg)
    if set(tensors) in ({FIRST}, {SECOND}):
        msg = f"the file holds {next(iter(tensors))} alone; for SDXL {FIRST} and {SECOND} are needed, for SD 1.5 neither"
        raise InvalidError(msg)
    names = sorted(tensors, key=lambda name: name == SECOND)
    # One vector may come without the first side.
    shapes = [[1, *tensors[name].shape][-2:] if len(tensors[name].shape) in {1, 2} else [0, 0] for name in names]
    for name, (vectors, width) in zip(names, shapes, strict=True):
        if not (1 <= vectors <= _MAX_VECTORS and 1 <= width <= _MAX_WIDTH):
            msg = (
                f"the textual inversion's {name[:200]!r} has the shape {tensors[name].shape[:8]}; "
                f"1 to {_MAX_VECTORS} vectors of a width of 1 to {_MAX_WIDTH} are needed"
            )
            raise InvalidError(msg)
    if len({vectors for vectors, _ in shapes}) != 1:
        msg = f"{FIRST} and {SECOND} hold {shapes[0][0]} and {shapes[1][0]} vectors; both need the same number"
        raise InvalidError(msg)
    types = {tensor.dtype for tensor in tensors.values()}
    if unknown := sorted(types - _DATA_TYPES.keys()):
        msg = f"the textual inversion's weights are {', '.join(unknown)}; float16, bfloat16 or float32 are needed"
        raise InvalidError(msg)
    return EmbeddingInfo(
        engine=Engine.SDXL if len(names) > 1 else Engine.SD15,
        widths=[width for _, width in shapes],
        vectors=shapes[0][0],
        trigger_word=names[0] if names[0] not in _UNNAMED and _WORD.fullmatch(names[0]) else None,
        data_type="fp32" if "F32" in types else "fp16",
    )
