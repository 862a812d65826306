"""Any image, LoRA or textual inversion is read or refused with a reason, by the confined child, in bounded memory and time.

A reader that breaks, or needs more than the child has, fails the test: its files would be refused without a word about them.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel

from shared.errors import InvalidError
from shared.formats import image, readers
from shared.formats.sandbox import Reader, Sandbox
from tests.support import damaged_images, damaged_weights

EXAMPLES = pytest.mark.parametrize("examples", [30, pytest.param(5_000, marks=pytest.mark.long)])
MAX_PIXELS = 1_000_000
MAX_INFO_BYTES = 20_000
MEMORY_BYTES, CPU_S = 400 << 20, 5
"""Less than the service gives: these files are small."""
Read = Callable[..., BaseModel | None]


class Children:
    """A confined child for each reader, which lives as long as no file breaks it."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._sandboxes: dict[int, Sandbox[Any]] = {}

    def read(self, reader: Reader[Any], source: Path, *arguments: object, target: Path | None = None) -> BaseModel | None:
        """Return what the reader finds, None where it refuses the file."""
        limits = replace(reader.limits, memory_bytes=MEMORY_BYTES, cpu_s=CPU_S)
        sandbox = self._sandboxes.setdefault(id(reader), Sandbox(replace(reader, limits=limits)))
        try:
            return self._runner.run(sandbox.read("the file", source, *arguments, target=target))
        except InvalidError as error:
            assert not error.message.startswith(("the file could not be read within", "the file took longer")), error.message
            assert len(error.message) < 2000
            return None

    def end(self) -> None:
        for sandbox in self._sandboxes.values():
            self._runner.run(sandbox.end())
        self._runner.close()


@pytest.fixture(scope="module")
def children() -> Iterator[Children]:
    made = Children()
    yield made
    made.end()


def _run(examples: int, files: st.SearchStrategy[bytes], check: Callable[[bytes], None]) -> None:
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    settings(max_examples=examples, deadline=None, database=None, suppress_health_check=quiet)(given(files)(check))()


@EXAMPLES
def test_any_image_becomes_a_clean_copy_or_is_refused(examples: int, children: Children, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"

    def check(data: bytes) -> None:
        source.write_bytes(data)
        reader = image._HEIC_READER if image._is_heic(data) else image._READER
        found: Any = children.read(reader, source, MAX_PIXELS, target=target)
        if found is None:
            return
        with Image.open(target, formats=["PNG", "JPEG"]) as copy:
            copy.load()
            assert copy.size == (found.width, found.height)
            assert copy.width * copy.height <= MAX_PIXELS
            assert copy.info.keys() & {"exif", "icc_profile", "xmp", "comment"} == set()

    _run(examples, damaged_images.images(), check)


@EXAMPLES
@pytest.mark.parametrize(
    ("reader", "files"),
    [(readers.LORA, damaged_weights.loras()), (readers.EMBEDDING, damaged_weights.embeddings())],
    ids=["LoRA", "embedding"],
)
def test_any_weights_are_described_shortly_or_refused(
    examples: int, children: Children, tmp_path: Path, reader: Reader[Any], files: st.SearchStrategy[bytes]
) -> None:
    source = tmp_path / "weights.safetensors"

    def check(data: bytes) -> None:
        source.write_bytes(data)
        found = children.read(reader, source)
        if found is not None:
            # It is stored in the database, which takes no half of a surrogate pair and no NUL.
            text = json.dumps(found.model_dump(mode="json"), ensure_ascii=False)
            assert len(text.encode()) < MAX_INFO_BYTES
            assert "\\u0000" not in text

    _run(examples, files, check)


@pytest.mark.parametrize("name", damaged_images.HONEST)
def test_the_images_are_good_before_they_are_damaged(name: str, children: Children, tmp_path: Path) -> None:
    split, data = damaged_images.HONEST[name]
    assert b"".join(split(data)) == data
    (tmp_path / "source").write_bytes(data)
    reader = image._HEIC_READER if image._is_heic(data) else image._READER
    assert children.read(reader, tmp_path / "source", MAX_PIXELS, target=tmp_path / "target") is not None
