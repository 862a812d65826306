"""What a textual inversion's header tells, in each layout, and what is refused."""

from pathlib import Path

import pytest

from shared.engines import Engine
from shared.errors import InvalidError
from shared.formats.embedding import read_embedding
from tests.support.upload_world import safetensors


def _write(tmp_path: Path, shapes: dict[str, list[int]], dtype: str = "F16") -> Path:
    path = tmp_path / "embedding.safetensors"
    path.write_bytes(safetensors(shapes, dtype=dtype))
    return path


@pytest.mark.parametrize(
    ("shapes", "engine", "widths", "vectors", "word"),
    [
        ({"<cat-toy>": [768]}, Engine.SD15, [768], 1, "<cat-toy>"),
        ({"<cat-toy>": [4, 768]}, Engine.SD15, [768], 4, "<cat-toy>"),
        ({"emb_params": [8, 128]}, Engine.SD15, [128], 8, None),
        ({"string_to_param.*": [3, 768], "step": [1]}, Engine.SD15, [768], 3, None),
        ({"clip_g": [2, 1280], "clip_l": [2, 768]}, Engine.SDXL, [768, 1280], 2, None),
        ({"text_encoders_1": [2, 1280], "text_encoders_0": [2, 768]}, Engine.SDXL, [768, 1280], 2, None),
    ],
)
def test_each_layout_is_recognised(
    tmp_path: Path, shapes: dict[str, list[int]], engine: Engine, widths: list[int], vectors: int, word: str | None
) -> None:
    info = read_embedding(_write(tmp_path, shapes))

    assert (info.engine, info.widths, info.vectors, info.trigger_word, info.data_type) == (engine, widths, vectors, word, "fp16")


def test_the_data_type_is_told(tmp_path: Path) -> None:
    assert read_embedding(_write(tmp_path, {"emb_params": [1, 768]}, dtype="F32")).data_type == "fp32"


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ({}, "has 0 tensors"),
        ({"a": [1, 768], "b": [1, 768]}, "has 2 tensors; a textual inversion has one"),
        ({"clip_l": [1, 768]}, "has clip_l alone"),
        ({"a": [65, 768]}, "has the shape \\[65, 768\\]; 1 to 64 vectors"),
        ({"a": [0, 768]}, "has the shape \\[0, 768\\]"),
        ({"a": [1, 4096]}, "a width of 1 to 2048"),
        ({"a": []}, "has the shape \\[\\]"),
        ({"a": [1, 1, 768]}, "has the shape \\[1, 1, 768\\]"),
        ({"clip_l": [1, 768], "clip_g": [2, 1280]}, "have 1 and 2 vectors"),
    ],
)
def test_what_is_not_a_textual_inversion_is_refused(tmp_path: Path, shapes: dict[str, list[int]], reason: str) -> None:
    with pytest.raises(InvalidError, match=reason):
        read_embedding(_write(tmp_path, shapes))


def test_values_must_be_finite(tmp_path: Path) -> None:
    path = _write(tmp_path, {"emb_params": [1, 768]})
    path.write_bytes(path.read_bytes()[:-2] + bytes((0, 0x7E)))

    with pytest.raises(InvalidError, match="the textual inversion's 'emb_params' has values that are not finite"):
        read_embedding(path)


def test_integers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="weights are I64"):
        read_embedding(_write(tmp_path, {"emb_params": [1, 768]}, dtype="I64"))
