"""Textual inversion files, described by their safetensors headers, without torch.

Layouts: diffusers' (one tensor, whose name is the trigger word), that of AUTOMATIC1111's web UI (`emb_params`), and `clip_l` and
`clip_g` for SDXL's two text encoders. Each row of a tensor is a vector, as wide as the text encoder that it was trained for.
"""

import re

from pydantic import BaseModel

from shared.engines import Engine
from shared.errors import InvalidError
from shared.formats.files import Source
from shared.formats.safetensors import data_type, read_header

FIRST, SECOND = "clip_l", "clip_g"
"""The tensors for SDXL's first and second text encoder."""
_UNNAMED = {"emb_params", FIRST, SECOND}
_MAX_VECTORS, _MAX_WIDTH = 64, 2048
_WORD = re.compile(r"[^\x00-\x20\x7f\ud800-\udfff]{1,200}")
"""Half a surrogate pair is text to JSON, and to no database."""


class EmbeddingInfo(BaseModel):
    """What the header tells of a textual inversion."""

    engine: Engine
    widths: list[int]
    """The width of the vectors for each text encoder, as in the checkpoint: 768 for SD 1.5, 768 and 1280 for SDXL."""
    vectors: int
    """The number of tokens that it takes in a prompt."""
    trigger_word: str | None
    """The trigger word; None in layouts that have none."""
    data_type: str
    """`fp16` (bfloat16 counts as it) or `fp32`."""


def read_embedding(source: Source) -> EmbeddingInfo:
    """Read a textual inversion file. Raises InvalidError that says why it is not one."""
    header = read_header(source)
    tensors = header.tensors
    if len(tensors) != 1 and set(tensors) != {FIRST, SECOND}:
        msg = (
            f"the file has {len(tensors)} tensors; a textual inversion has one (emb_params, or the trigger word's name) "
            f"for SD 1.5, and {FIRST} and {SECOND} for SDXL"
        )
        raise InvalidError(msg)
    if set(tensors) in ({FIRST}, {SECOND}):
        msg = f"the file has {next(iter(tensors))} alone; {FIRST} and {SECOND} are needed for SDXL, and neither for SD 1.5"
        raise InvalidError(msg)
    names = sorted(tensors, key=lambda name: name == SECOND)
    # A single vector may have one dimension.
    shapes = [[1, *tensors[name].shape][-2:] if len(tensors[name].shape) in {1, 2} else [0, 0] for name in names]
    for name, (vectors, width) in zip(names, shapes, strict=True):
        if not (1 <= vectors <= _MAX_VECTORS and 1 <= width <= _MAX_WIDTH):
            msg = (
                f"the textual inversion's {name[:200]!r} has the shape {tensors[name].shape[:8]}; "
                f"1 to {_MAX_VECTORS} vectors with a width of 1 to {_MAX_WIDTH} are needed"
            )
            raise InvalidError(msg)
    if len({vectors for vectors, _ in shapes}) != 1:
        msg = f"{FIRST} and {SECOND} have {shapes[0][0]} and {shapes[1][0]} vectors; both need the same number"
        raise InvalidError(msg)
    return EmbeddingInfo(
        engine=Engine.SDXL if len(names) > 1 else Engine.SD15,
        widths=[width for _, width in shapes],
        vectors=shapes[0][0],
        trigger_word=names[0] if names[0] not in _UNNAMED and _WORD.fullmatch(names[0]) else None,
        data_type=data_type({tensor.dtype for tensor in tensors.values()}, "the textual inversion's"),
    )
