"""Measures of images for their lint, taken in a child process with bounded memory and time.

`python -m services.scheduler.whatif.measures` is the child: it reads a path from each line, and answers with a line of JSON.
"""

import asyncio
import contextlib
import os
import resource
import sys
import warnings
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel

_MEMORY_BYTES = 1 << 30
_CPU_S = 300
_WALL_S = 30.0
"""For one image: long enough that a busy machine does not fail a good one."""
_SHARPNESS_SIDE_PX = 512
_HASH_SIDE = 8


class Measures(BaseModel):
    """An image's size in pixels, its sharpness, and a hash of its coarse content.

    `sharpness` is the variance of the Laplacian of the brightness (0 to 255), after the image was scaled down to 512 px.
    `difference_hash` has 64 bits: each says whether a pixel of a 9 x 8 copy is darker than its right neighbour (dHash). Similar
    images differ in few bits.
    """

    width: int
    height: int
    sharpness: float
    difference_hash: int


class Measurer:
    """Measures images one after the other. An image that breaks the child has no measures, and the next gets a new child."""

    def __init__(self) -> None:
        self._child: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        """Return the measurer; its child starts with the first image."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the child."""
        await self._end()

    async def measure(self, file: Path) -> Measures | None:
        """Return the measures of an image, or None when it cannot be read within the bounds."""
        child = self._child or await self._start()
        assert child.stdin is not None and child.stdout is not None  # noqa: S101, PT018 - asked for as pipes
        with contextlib.suppress(TimeoutError, ConnectionError):
            child.stdin.write(os.fsencode(file) + b"\n")
            answer = await asyncio.wait_for(child.stdout.readline(), _WALL_S)
            if answer.startswith(b"{"):
                return Measures.model_validate_json(answer)
            if answer:
                return None
        await self._end()
        return None

    async def _start(self) -> asyncio.subprocess.Process:
        self._child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.scheduler.whatif.measures"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            # The scheduler's environment holds its secrets; the child must not have them.
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        return self._child

    async def _end(self) -> None:
        if self._child is not None and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()
            await self._child.wait()
        self._child = None


def measure(file: Path) -> Measures:
    """Measure an image in this process. Raises what Pillow does."""
    # Imported here, so that the scheduler itself does not load Pillow, and the child loads it within its bounds.
    from PIL import Image, ImageFilter, ImageStat  # noqa: PLC0415

    with Image.open(file, formats=["PNG", "JPEG"]) as opened:
        width, height = opened.size
        grey = opened.convert("L")
    coarse = list(grey.resize((_HASH_SIDE + 1, _HASH_SIDE), Image.Resampling.BOX).tobytes())
    rows = [coarse[start : start + _HASH_SIDE + 1] for start in range(0, len(coarse), _HASH_SIDE + 1)]
    bits = [left < right for row in rows for left, right in pairwise(row)]
    grey.thumbnail((_SHARPNESS_SIDE_PX, _SHARPNESS_SIDE_PX), Image.Resampling.BOX)
    # Halved and shifted by 128, so that both signs of the Laplacian fit into a byte; the variance is then a quarter.
    edges = grey.filter(ImageFilter.Kernel((3, 3), (0, 1, 0, 1, -4, 1, 0, 1, 0), scale=2, offset=128))
    inner = edges.crop((1, 1, edges.width - 1, edges.height - 1))
    return Measures(
        width=width,
        height=height,
        sharpness=round(ImageStat.Stat(inner).var[0] * 4, 1),
        difference_hash=sum(bit << place for place, bit in enumerate(bits)),
    )


def _main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_S, _CPU_S))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    for line in sys.stdin.buffer:
        try:
            answer = measure(Path(os.fsdecode(line.rstrip(b"\n")))).model_dump_json()
        except Exception as error:  # noqa: BLE001 - Pillow raises anything for a broken file; the next file may be good
            answer = type(error).__name__
        print(answer, flush=True)


if __name__ == "__main__":
    _main()
