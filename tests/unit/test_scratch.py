"""Temporary folders: those of a process that was killed are deleted, and those of running processes are not."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.scratch import PREFIX, Scratch

HOLD = """
import sys
from pathlib import Path
from shared.scratch import Scratch
with Scratch(Path(sys.argv[1])).temporary("intake-") as folder:
    (folder / "upload.part").write_bytes(b"x")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process that has a temporary file below the same parent, and its folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield process, Path(process.stdout.readline().strip())
    process.kill()
    process.communicate()


def test_what_a_killed_process_left_is_deleted_at_the_next_start(
    other: tuple[subprocess.Popen[str], Path], tmp_path: Path
) -> None:
    process, folder = other
    process.kill()
    process.wait()
    assert (folder / "upload.part").exists()

    Scratch(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_what_a_running_process_uses_stays(other: tuple[subprocess.Popen[str], Path], tmp_path: Path) -> None:
    _, folder = other

    mine = Scratch(tmp_path)
    with mine.temporary("intake-") as temporary:
        assert temporary.is_dir()
        Scratch(tmp_path)
        assert temporary.is_dir()

    assert (folder / "upload.part").exists()
    assert not temporary.exists()


def test_only_leftovers_that_are_named_are_deleted_besides(tmp_path: Path) -> None:
    for name in ("intake-abc/upload", "01ABC.part", "kept.safetensors", "ab12/model_index.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    Scratch(tmp_path, leftovers=("intake-*", "*.part"))

    assert sorted(path.name for path in tmp_path.iterdir()) == ["ab12", "kept.safetensors"]


def test_nothing_is_made_before_it_is_needed(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "work")
    assert not (tmp_path / "work").exists()

    with scratch.temporary("x-"):
        assert [path.name[: len(PREFIX)] for path in (tmp_path / "work").iterdir()] == [PREFIX]
