"""Reads the values of tensors in a safetensors file, without torch and without the whole file in memory."""

import math
import struct
from typing import BinaryIO

from shared.errors import InvalidError
from shared.formats.safetensors import Header, Tensor, data_start

_CHUNK_BYTES = 4 << 20
_MOST_ALIKE = 1 << 16
_FORMATS = {
    "F64": "d",
    "F32": "f",
    "F16": "e",
    "I64": "q",
    "I32": "i",
    "I16": "h",
    "I8": "b",
    "U64": "Q",
    "U32": "I",
    "U16": "H",
    "U8": "B",
    "BOOL": "?",
}
_FLOATS = {
    # The bytes of a value; its highest byte without the sign when it may not be finite; where a second byte decides, the
    # smallest value of that byte.
    "F16": (2, frozenset(range(0x7C, 0x80)), 0),
    "BF16": (2, frozenset({0x7F}), 0x80),
    "F32": (4, frozenset({0x7F}), 0x80),
}
_FINITE_HIGH = {
    name: bytes(high for high in range(256) if high & 0x7F not in suspect) for name, (_, suspect, _) in _FLOATS.items()
}


def check_finite(file: BinaryIO, header: Header, what: str) -> None:
    """Raise InvalidError for the first tensor, in the order of the file, that holds a value which is not a finite number."""
    start = data_start(file)
    for name, tensor in sorted(header.tensors.items(), key=lambda item: item[1].data_offsets):
        if tensor.dtype in _FLOATS and not _is_finite(file, start, tensor):
            msg = (
                f"{what} {name[:200]!r} has values that are not finite numbers (NaN or infinite), as after a training that "
                "diverged; use an earlier save, or train with a lower learning rate"
            )
            raise InvalidError(msg)


def _is_finite(file: BinaryIO, start: int, tensor: Tensor) -> bool:
    width, _, least = _FLOATS[tensor.dtype]
    begin, end = tensor.data_offsets
    file.seek(start + begin)
    for position in range(begin, end, _CHUNK_BYTES):
        chunk = file.read(min(_CHUNK_BYTES, end - position))
        high = chunk[width - 1 :: width]
        # `translate` deletes the bytes of finite values in C, which takes 1 ns a value.
        if not high.translate(None, _FINITE_HIGH[tensor.dtype]):
            continue
        second = chunk[width - 2 :: width]
        finite = frozenset(_FINITE_HIGH[tensor.dtype])
        if any(one not in finite and other >= least for one, other in zip(high, second, strict=True)):
            return False
    return True


def read_number(file: BinaryIO, name: str, tensor: Tensor) -> float:
    """Return the one number of a tensor, whatever its type and shape. Raises InvalidError if it has none or several."""
    begin, end = tensor.data_offsets
    numbers: set[float] = set()
    if 0 < end - begin <= _MOST_ALIKE:
        file.seek(data_start(file) + begin)
        numbers = set(_numbers(file.read(end - begin), tensor.dtype))
    if len(numbers) != 1 or not math.isfinite(number := numbers.pop()):
        msg = f"the LoRA's {name[:200]!r} has the type {tensor.dtype} and the shape {tensor.shape}; one finite number is needed"
        raise InvalidError(msg)
    return number


def _numbers(data: bytes, dtype: str) -> tuple[float, ...]:
    if dtype == "BF16":
        # A bfloat16 is the upper half of a float32.
        halves = (data[place : place + 2] for place in range(0, len(data), 2))
        return tuple(struct.unpack("<f", bytes(2) + half)[0] for half in halves)
    if dtype not in _FORMATS:
        return ()
    code = _FORMATS[dtype]
    return tuple(float(number) for number in struct.unpack(f"<{len(data) // struct.calcsize(code)}{code}", data))
