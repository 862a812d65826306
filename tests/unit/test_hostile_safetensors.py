"""Safetensors files that are damaged or made to do harm are refused by every reader of weights, in bounded time."""

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from shared.errors import InvalidError
from shared.formats import checkpoint, ldm_layout
from shared.formats.embedding import read_embedding
from shared.formats.ldm_layout import TextShape, UNetShape, VaeShape
from shared.formats.lora.info import read_lora
from shared.formats.safetensors import read_header
from shared.formats.vae import read_vae
from tests.support.cpu_time import bounded_cpu
from tests.support.hostile_files import safetensors_file

READERS: list[Callable[[Any], BaseModel]] = [read_lora, read_vae, read_embedding, checkpoint.read_file, checkpoint.lay_out]
MAX_INFO_BYTES = 20_000


def _with_shapes(shapes: dict[str, tuple[int, ...]], metadata: dict[str, str] | None = None) -> dict[str, Any]:
    header: dict[str, Any] = {"__metadata__": metadata or {}}
    position = 0
    for name, shape in shapes.items():
        size = 2
        for side in shape:
            size *= side
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    return header


def _whole_model() -> dict[str, tuple[int, ...]]:
    unet = UNetShape(4, (32, 32), 1, (1, 0), 1, 64, None, False)
    vae = VaeShape(4, (32,), 1, True, True)
    parts = {
        "model.diffusion_model.": ldm_layout.unet(unet),
        "first_stage_model.": ldm_layout.vae(vae),
        "cond_stage_model.transformer.": ldm_layout.clip(TextShape(600, 77, 64, 64, 1)),
    }
    return {prefix + name: shape for prefix, shapes in parts.items() for name, shape in shapes.items()}


MODULE = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
KOHYA = {"ss_tag_frequency": '{"a": {"dog": 2}}', "ss_dataset_dirs": '{"a": {"img_count": 2}}', "base_sha256": "ab" * 32}
HONEST = {
    "lora": _with_shapes({f"{MODULE}.lora.down.weight": (2, 768), f"{MODULE}.lora.up.weight": (320, 2)}, KOHYA),
    "embedding": _with_shapes({"<sks>": (2, 8)}),
    "vae": _with_shapes(ldm_layout.vae(VaeShape(4, (8, 8), 1, True, True))),
    "checkpoint": _with_shapes(_whole_model(), {"modelspec.resolution": "64x64"}),
}


@pytest.mark.parametrize(
    ("name", "reader"), list(zip(HONEST, [read_lora, read_embedding, read_vae, checkpoint.read_file], strict=True))
)
def test_the_honest_files_are_read(name: str, reader: Callable[[Any], BaseModel]) -> None:
    assert reader(io.BytesIO(_file(HONEST[name])))


def _file(header: dict[str, Any]) -> bytes:
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    return safetensors_file(header, bytes(max(ends, default=0)))


TENSOR = b'"%d":{"dtype":"F16","shape":[0],"data_offsets":[0,0]}'
HOSTILE = {
    "16 MiB of long numbers": (b'{"a":[' + b",".join([b"9" * 4000] * 4000) + b"]}", "a number of 4000 digits"),
    "one number of 16 MiB": (b'{"a":' + b"9" * ((16 << 20) - 10) + b"}", "digits, where at most 20"),
    "a long fraction": (b'{"a":0.' + b"9" * (1 << 20) + b"}", "characters, where at most 64"),
    "infinity": (b'{"a":Infinity}', "Infinity, which is not a number"),
    "a million brackets": (b'{"a":' + b"[" * 10**6, "too deeply"),
    "millions of lists": (b'{"a":[' + b"[]," * (5 << 20) + b"[]]}", "not the JSON object"),
    "200,000 tensors": (b"{" + b",".join(TENSOR % n for n in range(200_000)) + b"}", "holds 200000 tensors; at most 20000"),
    "many dimensions": ({"a": {"dtype": "U8", "shape": [1] * 10**5, "data_offsets": [0, 1]}}, "100000 dimensions"),
    "a long name": ({"a" * 10**6: {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}, "a name of 1000000 characters"),
    "sides that multiply": ({"a": {"dtype": "U8", "shape": [2**63] * 8, "data_offsets": [0, 1]}}, "does not fit its shape"),
    "a side below zero": ({"a": {"dtype": "U8", "shape": [-1, -1], "data_offsets": [0, 1]}}, "does not fit its shape"),
    "an end before its start": ({"a": {"dtype": "U8", "shape": [], "data_offsets": [1, 0]}}, "does not fit its shape"),
    "a side that is text": ({"a": {"dtype": "U8", "shape": ["9" * 4000], "data_offsets": [0, 1]}}, "not the JSON object"),
    "a side that is a fraction": ({"a": {"dtype": "U8", "shape": [1.0], "data_offsets": [0, 1]}}, "not the JSON object"),
    "metadata that is no text": ({"__metadata__": {"a": 1}}, "not the JSON object"),
    "another encoding": (b'\xff\xfe{\0"\0', "is not JSON"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_refused_with_what_is_wrong(name: str) -> None:
    header, reason = HOSTILE[name]
    content = safetensors_file(header, b"x")

    with bounded_cpu(), pytest.raises(InvalidError, match=reason):
        read_header(io.BytesIO(content))


def test_a_length_that_the_file_does_not_have_is_not_read() -> None:
    with pytest.raises(InvalidError, match="is not safetensors"):
        read_header(io.BytesIO((2**63).to_bytes(8, "little") + b"{}"))


VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([None, True, -1, 0, 1, 2, 768, 2048, 2**31, 2**63, 2**64, 10**30, 1.5, "", "F16", "I64", [], {}, "9" * 5000]),
    st.lists(st.sampled_from([0, 1, 2, 8, 768, -1, 2**40, "1"]), max_size=10),
    st.text(max_size=20),
)
NAMES = st.sampled_from(
    [
        "<sks>",
        "emb_params",
        "clip_l",
        "clip_g",
        f"{MODULE}.lora.down.weight",
        f"{MODULE}.lora_mid.weight",
        "lora_te2_x.lora_down.weight",
        "encoder.down.0.block.0.conv1.weight",
        "decoder.conv_in.weight",
        "model.diffusion_model.input_blocks.1.0.op.weight",
        "conditioner.embedders.1.model.token_embedding.weight",
        "\ud800",
        "\x00",
        "v_pred",
    ]
)
METADATA = st.dictionaries(
    st.sampled_from(
        [*KOHYA, "trigger_word", "modelspec.trigger_phrase", "shape_class", "engine", "tunesmith.vae.norm_num_groups"]
    ),
    st.sampled_from(
        ["", "0", "9" * 5000, "[[[[", "\ud800", "x" * 10**5, '{"a": {"b": 1e999}}', '{"a": NaN}', '{"a": 1}', "\x00"]
    ),
    max_size=3,
)


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    """Draw an honest file of some kind, some of whose tensors are changed, renamed, repeated or gone."""
    header = copy.deepcopy(HONEST[draw(st.sampled_from(sorted(HONEST)))])
    header["__metadata__"] |= draw(METADATA)
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(sorted(header.keys() - {"__metadata__"}) or ["a"]))
        match draw(st.sampled_from(["field", "rename", "repeat", "drop", "side"])):
            case "field":
                header[name] = header.get(name, {}) | {draw(st.sampled_from(["dtype", "shape", "data_offsets"])): draw(VALUES)}
            case "rename" if name in header:
                header[draw(NAMES)] = header.pop(name)
            case "repeat":
                header[draw(NAMES)] = header.get(name, {})
            case "side" if name in header and _has_sides(header[name]):
                sides: list[Any] = header[name]["shape"]
                sides[draw(st.integers(0, len(sides) - 1))] = draw(st.sampled_from([0, 1, 3, 2**20]))
            case _:
                header.pop(name, None)
    if draw(st.booleans()):
        _settle(header)
    data = draw(st.sampled_from([None, b"", bytes(100)]))
    return safetensors_file(header, data) if data is not None else _file_of_any(header)


def _has_sides(tensor: dict[str, Any]) -> bool:
    return isinstance(tensor.get("shape"), list) and bool(tensor["shape"])


def _settle(header: dict[str, Any]) -> None:
    """Give each tensor the place that its shape needs, so that more than the offsets is looked at."""
    position = 0
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        size = 2
        shape: Any = tensor.get("shape")
        sides: list[Any] = shape if isinstance(shape, list) else []
        for side in sides:
            size *= side if isinstance(side, int) and 0 <= side <= 4096 else 1
        tensor["data_offsets"] = [position, position + size]
        position += size


def _file_of_any(header: dict[str, Any]) -> bytes:
    try:
        size = max((tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"), default=0)
    except (TypeError, KeyError, IndexError):
        size = 0
    return safetensors_file(header, bytes(size if isinstance(size, int) and 0 <= size < 1 << 24 else 0))


@pytest.mark.parametrize("examples", [200, pytest.param(20_000, marks=pytest.mark.long)])
def test_any_file_is_described_shortly_or_refused(examples: int, tmp_path: Path) -> None:
    path = tmp_path / "weights"

    @settings(max_examples=examples, deadline=None, database=None)
    @given(_mutated())
    def check(content: bytes) -> None:
        path.write_bytes(content)
        with bounded_cpu(10 * len(READERS)):
            for reader in READERS:
                try:
                    info = reader(path)
                except InvalidError as error:
                    assert len(error.message) < 2000
                else:
                    # It is stored in the database, which takes no half of a surrogate pair and no NUL.
                    text = json.dumps(info.model_dump(mode="json"), ensure_ascii=False)
                    assert len(text.encode()) < MAX_INFO_BYTES
                    assert "\\u0000" not in text

    check()
