"""The header of a safetensors file, read without torch and without the weights.

The format (github.com/huggingface/safetensors): the header's length in eight little-endian bytes, the header as JSON, and the
bytes of the tensors, one after the other. A pickle is refused, whatever its name.
"""

import json
from collections.abc import Collection, Mapping
from math import prod
from typing import Any, BinaryIO

from pydantic import BaseModel, Field, StrictInt, ValidationError

from shared.errors import InvalidError
from shared.formats import strict_json
from shared.formats.files import Source, opened, size_of

MAX_HEADER_BYTES = 16 * 2**20
MAX_TENSORS = 20_000
"""SDXL's single-file checkpoints have 2,500, and a LoRA of all its layers 8,000."""
MAX_SIDES = 8
_MAX_NAME_LENGTH = 1000
_LENGTH_BYTES = 8
_FLOAT_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8}
_INTEGER_BITS = {"I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8}
_BITS = _FLOAT_BITS | _INTEGER_BITS
_DATA_TYPES = {"F16", "BF16", "F32"}


class Tensor(BaseModel):
    """A tensor's type (`F16`, `BF16`, `F32`, ...), its shape, and where its bytes begin and end."""

    dtype: str
    shape: list[StrictInt]
    data_offsets: tuple[StrictInt, StrictInt]


class Header(BaseModel):
    """The metadata of a safetensors file, and its tensors by name."""

    metadata: dict[str, str] = Field(default_factory=dict)
    tensors: dict[str, Tensor]


def read_header(source: Source) -> Header:
    """Read and check the header: every tensor's bytes are there, in order, without a gap, and nothing else is.

    Raises InvalidError that says what is wrong.
    """
    with opened(source) as file:
        size = size_of(file)
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if size <= _LENGTH_BYTES or length > size - _LENGTH_BYTES:
            msg = f"the file is not safetensors: it has {size} bytes, less than the length of its header says"
            raise InvalidError(msg)
        if length > MAX_HEADER_BYTES:
            msg = f"the safetensors header has {length} bytes; at most {MAX_HEADER_BYTES} are allowed"
            raise InvalidError(msg)
        text = file.read(length)
    document = strict_json.load_object(text, "the file is not safetensors: its header")
    metadata = document.pop("__metadata__", {})
    # Before an object is made of each.
    if len(document) > MAX_TENSORS:
        msg = f"the file holds {len(document)} tensors; at most {MAX_TENSORS} are allowed"
        raise InvalidError(msg)
    try:
        header = Header(metadata=metadata, tensors=document)
    except ValidationError as error:
        raise _not_a_header() from error
    _check_offsets(header, size - _LENGTH_BYTES - length)
    return header


def data_start(file: BinaryIO) -> int:
    """Return where the tensors' bytes begin in a file whose header has been read."""
    file.seek(0)
    return _LENGTH_BYTES + int.from_bytes(file.read(_LENGTH_BYTES), "little")


def _not_a_header() -> InvalidError:
    return InvalidError("the file is not safetensors: its header is not the JSON object that the format asks for")


def data_type(types: Collection[str], whose: str) -> str:
    """Return `fp16` (bfloat16 counts as it) or `fp32`, the widest of these types. Raises InvalidError for any other type.

    OctoAI's API knows these two.
    """
    if unknown := sorted(set(types) - _DATA_TYPES):
        msg = f"{whose} weights are {', '.join(unknown)}; float16, bfloat16 or float32 are needed"
        raise InvalidError(msg)
    return "fp32" if "F32" in types else "fp16"


def with_ordered_metadata(file: bytes) -> bytes:
    """Return a safetensors file whose metadata is sorted by name, so that equal contents give equal bytes.

    The safetensors library writes the metadata in a random order, so the file's SHA-256 would differ each time.
    """
    start = _LENGTH_BYTES + int.from_bytes(file[:_LENGTH_BYTES], "little")
    header = json.loads(file[_LENGTH_BYTES:start])
    metadata = header.pop("__metadata__")
    return _header_bytes(header, metadata) + file[start:]


def header_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return what a safetensors file begins with; the bytes of the tensors follow, in the order of their offsets."""
    return _header_bytes({name: tensor.model_dump(mode="json") for name, tensor in tensors.items()}, metadata)


def _header_bytes(tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    text = json.dumps({"__metadata__": dict(sorted(metadata.items()))} | dict(tensors), separators=(",", ":"), ensure_ascii=False)
    # The format pads the header with spaces, so that the tensors begin at a multiple of 8.
    encoded = text.encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(_LENGTH_BYTES, "little") + encoded


def _check_offsets(header: Header, data_bytes: int) -> None:
    position = 0
    for name, tensor in sorted(header.tensors.items(), key=lambda item: item[1].data_offsets):
        begin, end = tensor.data_offsets
        if len(name) > _MAX_NAME_LENGTH or len(tensor.shape) > MAX_SIDES:
            msg = (
                f"tensor {name[:200]!r} has a name of {len(name)} characters and {len(tensor.shape)} dimensions; at most "
                f"{_MAX_NAME_LENGTH} and {MAX_SIDES} are allowed"
            )
            raise InvalidError(msg)
        bits = _BITS.get(tensor.dtype)
        if bits is None:
            msg = f"tensor {name[:200]!r} has the unknown type {tensor.dtype[:50]!r}"
            raise InvalidError(msg)
        if begin != position or min(tensor.shape, default=0) < 0 or (end - begin) * 8 != prod(tensor.shape) * bits:
            msg = f"tensor {name[:200]!r} does not fit its shape, or overlaps another, or leaves a gap before it"
            raise InvalidError(msg)
        position = end
    if position != data_bytes:
        msg = (
            f"the file holds {data_bytes} bytes of weights where its header describes {position}: it is truncated, or has bytes "
            "after its end"
        )
        raise InvalidError(msg)
