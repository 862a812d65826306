"""The header of safetensors files, checked against the library that writes them."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from shared.errors import InvalidError
from shared.formats.safetensors import read_header, with_ordered_metadata

TENSORS = {"a": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.ones(3, dtype=np.float32)}
METADATA = {name: f"the value of {name}, with an é" for name in ("trigger_word", "engine", "alpha", "steps", "format")}


def test_metadata_is_put_in_order_and_nothing_else_changes(tmp_path: Path) -> None:
    file = with_ordered_metadata(save(TENSORS, METADATA))
    (tmp_path / "file").write_bytes(file)
    header = read_header(tmp_path / "file")

    assert list(header.metadata.items()) == sorted(METADATA.items())
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in header.tensors.items()} == {
        "a": ("F16", [2, 3]),
        "b": ("F32", [3]),
    }
    assert all(np.array_equal(tensor, TENSORS[name]) for name, tensor in load(file).items())


@pytest.mark.parametrize("longer", range(8))
def test_tensors_begin_at_a_multiple_of_eight_bytes(longer: int) -> None:
    file = with_ordered_metadata(save(TENSORS, METADATA | {"format": "x" * longer}))

    assert int.from_bytes(file[:8], "little") % 8 == 0
    assert np.array_equal(load(file)["a"], TENSORS["a"])


def test_equal_contents_give_equal_bytes() -> None:
    # The library orders the metadata anew each time: of ten files, two differ almost surely.
    assert len({with_ordered_metadata(save(TENSORS, METADATA)) for _ in range(10)}) == 1


def _with_header(document: object, weights: bytes = b"") -> bytes:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return len(text).to_bytes(8, "little") + text + weights


def _tensor(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (b"", "is not safetensors"),
        (b"\x80\x04\x95 a pickle, whose first bytes are no length", "less than the length of its header says"),
        ((17 * 2**20).to_bytes(8, "little") + bytes(17 * 2**20), "at most 16777216 are allowed"),
        (_with_header(b"not JSON"), "its header is not JSON"),
        (_with_header([1, 2]), "its header is not a JSON object"),
        (_with_header(b"[" * 200_000), "its header nests"),
        (_with_header({"a": {"dtype": "F32"}}), "header is not the JSON object"),
        (_with_header({"a": _tensor(0, 4, [1], "F1")}, bytes(4)), "'a' has the unknown type 'F1'"),
        (_with_header({"a": _tensor(0, 4, [2])}, bytes(4)), "'a' does not fit its shape"),
        (_with_header({"a": _tensor(0, 4, [-1])}, bytes(4)), "'a' does not fit its shape"),
        (_with_header({"a": _tensor(4, 8, [1])}, bytes(8)), "leaves a gap before it"),
        (_with_header({"a": _tensor(0, 4, [1]), "b": _tensor(0, 4, [1])}, bytes(4)), "overlaps another"),
        (_with_header({"a": _tensor(0, 4, [1])}, bytes(3)), "truncated"),
        (_with_header({"a": _tensor(0, 4, [1])}, bytes(5)), "bytes after its end"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_header_that_is_wrong_is_refused_with_what_is_wrong(tmp_path: Path, file: bytes, says: str) -> None:
    (tmp_path / "file").write_bytes(file)

    with pytest.raises(InvalidError, match=says):
        read_header(tmp_path / "file")
