"""A disk cache of LoRAs and other single files by SHA-256: each is downloaded once and kept while there is room."""

import os
from pathlib import Path

from prometheus_client import Counter

from shared.blobs.store import Blobs
from shared.errors import InvalidError
from shared.scratch import Scratch
from shared.telemetry import get_logger

log = get_logger(__name__)

_SUFFIX = ".safetensors"
_FETCHES = Counter(
    "tunesmith_file_cache", "LoRAs and other single files that were asked for, by whether the disk had them.", ["result"]
)


class FileCache:
    """A folder of files named by their SHA-256. Over its limit it loses the files unused for longest."""

    def __init__(self, folder: Path, blobs: Blobs, max_bytes: int) -> None:
        self._folder = folder
        self._blobs = blobs
        self._max_bytes = max_bytes
        self._scratch = Scratch(folder, leftovers=("*.download", "*.part"))

    async def fetch(self, key: str, sha256: str, what: str) -> Path:
        """Return the file of a blob, downloaded unless it is cached; `what` names it in errors.

        A file gets its name only after its bytes are checked. Raises NotFoundError if the object is gone, and InvalidError if
        its bytes have changed.
        """
        place = self._folder / f"{sha256}{_SUFFIX}"
        is_here = place.exists()
        _FETCHES.labels("hit" if is_here else "miss").inc()
        if not is_here:
            await self._download(key, sha256, place, what)
        os.utime(place)
        return place

    async def _download(self, key: str, sha256: str, place: Path, what: str) -> None:
        with self._scratch.temporary("file-") as folder:
            draft = folder / "download"
            stored = await self._blobs.get_file(key, draft)
            if stored.sha256 != sha256:
                msg = f"the bytes of {what} have sha256 {stored.sha256}, not {sha256}; upload it again"
                raise InvalidError(msg)
            draft.replace(place)

    def trim(self, in_use: set[Path]) -> None:
        """Delete the files unused for longest until the rest fits the limit, but none of those in use."""
        if not self._folder.is_dir():
            return
        total = 0
        for place in sorted(self._folder.glob(f"*{_SUFFIX}"), key=lambda file: file.stat().st_mtime, reverse=True):
            total += place.stat().st_size
            if total > self._max_bytes and place not in in_use:
                log.info("file.evicted", file=place.name)
                place.unlink()
