"""Checkpoints on this machine's disk, by SHA-256: each is unpacked once, and kept while there is room."""

import asyncio
import os
import shutil
from pathlib import Path

from prometheus_client import Counter

from shared.blobs.store import Blobs
from shared.errors import InvalidError
from shared.formats import checkpoint, readers, sandbox
from shared.scratch import PREFIX, Scratch
from shared.telemetry import get_logger

log = get_logger(__name__)

_FETCHES = Counter("tunesmith_checkpoint_cache", "Checkpoints that were asked for, by whether the disk had them.", ["result"])


class CheckpointCache:
    """A folder of unpacked checkpoints, named by their blobs' SHA-256. Over `max_bytes` the least recently used are deleted."""

    def __init__(self, folder: Path, blobs: Blobs, max_bytes: int) -> None:
        self._folder = folder
        self._blobs = blobs
        self._max_bytes = max_bytes
        # Drafts lie in the same file system as the folders, so that these appear whole, by a rename.
        self._scratch = Scratch(folder, leftovers=("*.part", "*.folder", "*.tar"))

    async def fetch(self, key: str, sha256: str) -> Path:
        """Return the unpacked folder of a checkpoint's blob; download it unless it is here.

        A folder appears only whole and verified. Raises NotFoundError when the object is missing, and InvalidError when its bytes
        have changed or cannot be unpacked.
        """
        place = self._folder / sha256
        is_here = await asyncio.to_thread(place.exists)
        _FETCHES.labels("hit" if is_here else "miss").inc()
        if not is_here:
            await self._download(key, sha256, place)
        os.utime(place)
        await asyncio.to_thread(self._evict, place)
        return place

    async def _download(self, key: str, sha256: str, place: Path) -> None:
        with self._scratch.temporary("checkpoint-") as folder:
            archive, unpacked = folder / "archive", folder / "unpacked"
            stored = await self._blobs.get_file(key, archive)
            if stored.sha256 != sha256:
                msg = f"the checkpoint's bytes have the sha256 {stored.sha256}, not {sha256}; upload the checkpoint again"
                raise InvalidError(msg)
            layout = await sandbox.read(readers.LAYOUT, "the checkpoint", archive)
            await asyncio.to_thread(checkpoint.unpack, archive, unpacked, layout)
            await asyncio.to_thread(_move, unpacked, place)
            log.info("checkpoint.fetched", sha256=sha256, size_bytes=stored.size_bytes)

    def _evict(self, in_use: Path) -> None:
        places = [place for place in self._folder.iterdir() if place.is_dir() and not place.name.startswith(PREFIX)]
        kept = sorted(places, key=lambda place: place.stat().st_mtime, reverse=True)
        total = 0
        for place in kept:
            total += sum(file.stat().st_size for file in place.rglob("*") if file.is_file())
            if total > self._max_bytes and place != in_use:
                log.info("checkpoint.evicted", folder=place.name)
                shutil.rmtree(place, ignore_errors=True)


def _move(unpacked: Path, place: Path) -> None:
    """Move the folder to its place, unless another download put one there."""
    if not place.exists():
        unpacked.rename(place)
