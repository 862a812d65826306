"""Textual inversion files, described by their safetensors headers, without torch.

Layouts: diffusers' (one tensor, whose name is the trigger word), those of AUTOMATIC1111's web UI (`emb_params`, or a converted
pickle's `string_to_param.*` beside `step`), and for SDXL's two text encoders `clip_l` and `clip_g`, or Replicate's
`text_encoders_0` and `text_encoders_1`. Each row of a tensor is a vector, as wide as the text encoder that it was trained for.
"""

import re
from collections.abc import Collection

from pydantic import BaseModel

from shared.engines import Engine
from shared.errors import InvalidError
from shared.formats import mistaken
from shared.formats.files import Source, opened
from shared.formats.safetensors import Header, data_type, read_header
from shared.formats.values import check_finite

FIRST, SECOND = "clip_l", "clip_g"
"""The tensors for SDXL's first and second text encoder."""
_SDXL = {FIRST: FIRST, SECOND: SECOND, "text_encoders_0": FIRST, "text_encoders_1": SECOND}
_UNNAMED = re.compile(r"emb_params|string_to_param(\..*)?|clip_[lg]|text_encoders_[01]")
_NO_VECTORS = re.compile(r"step|sd_checkpoint(_name)?|string_to_token(\..*)?|name")
"""What the web UI's own files have beside the vectors."""
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


def vectors_of(names: Collection[str]) -> list[str]:
    """Return the names of the tensors that hold vectors, that of the first text encoder first."""
    found = [name for name in names if len(names) == 1 or not _NO_VECTORS.fullmatch(name)]
    return sorted(found, key=lambda name: _SDXL.get(name) == SECOND)


def read_embedding(source: Source) -> EmbeddingInfo:
    """Read a textual inversion file. Raises InvalidError that says why it is not one."""
    mistaken.check(source, "weights")
    with opened(source) as file:
        header = read_header(file)
        info = _described(header)
        check_finite(file, header, "the textual inversion's")
    return info


def _described(header: Header) -> EmbeddingInfo:
    names = vectors_of(header.tensors)
    tensors = {name: header.tensors[name] for name in names}
    encoders = [_SDXL.get(name) for name in names]
    if len(tensors) != 1 and encoders != [FIRST, SECOND]:
        msg = (
            f"the file has {len(tensors)} tensors; a textual inversion has one (emb_params, string_to_param.*, or the "
            f"trigger word's name) for SD 1.5, and {FIRST} and {SECOND} for SDXL; save one textual inversion alone"
        )
        raise InvalidError(msg)
    if encoders in ([FIRST], [SECOND]):
        msg = f"the file has {names[0]} alone; {FIRST} and {SECOND} are needed for SDXL, and neither for SD 1.5"
        raise InvalidError(msg)
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
        trigger_word=names[0] if not _UNNAMED.fullmatch(names[0]) and _WORD.fullmatch(names[0]) else None,
        data_type=data_type({tensor.dtype for tensor in tensors.values()}, "the textual inversion's"),
    )
