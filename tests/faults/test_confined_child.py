"""What reads uploaded files is confined: whatever a file makes it do, the service goes on and gives a verdict."""

import asyncio
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from shared.errors import InvalidError
from shared.formats import sandbox
from shared.formats.confinement import Limits
from shared.formats.sandbox import Reader, Sandbox, SandboxError
from tests.support import hostile_readers
from tests.support.hostile_readers import Found

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems have only the limits")
START_CPU_S = 2.0
"""Far above what the child's start takes: 0.3 s on a machine of 2026."""


def reader(function: Callable[..., Found], **limits: Any) -> Reader[Found]:
    return Reader(function, TypeAdapter(Found), limits=Limits(**{"memory_bytes": 400 << 20, "cpu_s": 1} | limits))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_text("the file's text")
    return path


async def test_it_returns_what_the_reader_returns(source: Path) -> None:
    assert (await sandbox.read(reader(hostile_readers.read_text), "the file", source)).text == "the file's text"


@pytest.mark.parametrize(
    "function",
    [hostile_readers.take_memory, hostile_readers.spin, hostile_readers.end_the_process, hostile_readers.crash],
    ids=lambda function: function.__name__,
)
async def test_a_file_that_exhausts_or_ends_it_is_refused_with_limit_and_remedy(
    source: Path, function: Callable[..., Found]
) -> None:
    with pytest.raises(InvalidError, match=r"the LoRA could not be read within 400 MiB of memory and 1 s .* send a smaller"):
        await sandbox.read(reader(function), "the LoRA", source)


async def test_a_file_that_takes_for_ever_is_refused(source: Path) -> None:
    with pytest.raises(InvalidError, match=r"the LoRA took longer than 0\.2 s to read; send a smaller"):
        await sandbox.read(reader(hostile_readers.hang, wall_s=0.2), "the LoRA", source)


@LINUX
async def test_a_file_whose_reader_the_system_kills_is_refused(source: Path) -> None:
    async with Sandbox(reader(hostile_readers.hang)) as child:
        reading = asyncio.create_task(child.read("the LoRA", source))
        (await _started(child)).kill()
        with pytest.raises(InvalidError, match="the LoRA could not be read within 400 MiB of memory"):
            await reading


async def test_a_file_that_becomes_too_large_is_refused(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"

    with pytest.raises(InvalidError, match="could not be read within"):
        await sandbox.read(reader(hostile_readers.fill_the_disk, output_bytes=3 << 20), "the image", source, target=target)

    assert target.stat().st_size <= 3 << 20


async def test_an_endless_answer_is_no_answer(source: Path) -> None:
    with pytest.raises(InvalidError, match="could not be read within"):
        await sandbox.read(reader(hostile_readers.answer_at_length), "the file", source)


async def test_a_bug_of_a_reader_is_not_blamed_on_the_file(source: Path) -> None:
    with pytest.raises(SandboxError, match="KeyError: 'shape'"):
        await sandbox.read(reader(hostile_readers.raise_a_bug), "the file", source)


@LINUX
@pytest.mark.parametrize("has_threads", [False, True])
async def test_it_reaches_nothing_but_the_files_that_it_is_given(
    source: Path, monkeypatch: pytest.MonkeyPatch, *, has_threads: bool
) -> None:
    monkeypatch.setenv("TUNESMITH_S3_SECRET_KEY", "secret")
    os.set_inheritable(secret := os.open(source, os.O_RDONLY), True)

    try:
        every = reader(hostile_readers.attempt_everything, has_threads=has_threads)
        found = await sandbox.read(every, "the file", source, str(source))
    finally:
        os.close(secret)

    assert found.text == ""
    assert not source.with_name("made").exists()


@LINUX
async def test_it_starts_threads_only_where_its_reader_needs_them(source: Path) -> None:
    allowed = await sandbox.read(reader(hostile_readers.use_a_thread, has_threads=True), "the file", source)
    assert allowed.text == "a thread"
    with pytest.raises(SandboxError, match="can't start new thread"):
        await sandbox.read(reader(hostile_readers.use_a_thread), "the file", source)


async def test_after_a_file_that_ends_it_the_next_one_is_read(source: Path) -> None:
    async with Sandbox(reader(hostile_readers.read_text)) as child:
        first = await child.read("the file", source)
        process = child.process
        assert process is not None
        assert (await child.read("the file", source), child.process) == (first, process)
        process.kill()
        await process.wait()
        with pytest.raises(InvalidError):
            await child.read("the file", source)
        assert await child.read("the file", source) == first


async def test_each_file_has_its_own_processor_time(source: Path) -> None:
    async with Sandbox(reader(hostile_readers.use_a_second, cpu_s=2)) as child:
        for _ in range(4):
            await child.read("the file", source)


@LINUX
async def test_a_cancelled_reading_ends_the_child(source: Path) -> None:
    async with Sandbox(reader(hostile_readers.hang)) as child:
        reading = asyncio.create_task(child.read("the file", source))
        process = await _started(child)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert process.returncode is not None


async def _started(child: Sandbox[Found]) -> asyncio.subprocess.Process:
    """Return the child once it is confined, which is when it begins to read."""
    async with asyncio.timeout(60):
        while (process := child.process) is None or "Seccomp:\t2" not in Path(f"/proc/{process.pid}/status").read_text():
            await asyncio.sleep(0.01)
    return process


async def test_its_start_is_quick(source: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)

    await sandbox.read(reader(hostile_readers.read_text), "the file", source)

    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < START_CPU_S
