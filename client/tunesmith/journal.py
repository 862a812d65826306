"""Which file became which asset, so that an upload that was cut off is resumed, and a file is not sent twice."""

import contextlib
import os
from pathlib import Path

_MOST_LINES = 20_000


def _path() -> Path:
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "tunesmith" / "uploads"


class Journal:
    """Lines of an asset's id and the hash of its file, in the user's folder for such state."""

    def __init__(self) -> None:
        self._file = _path()
        self._digests: dict[str, str] = {}
        with contextlib.suppress(OSError):
            lines = self._file.read_text().splitlines()
            self._digests = dict(line.split(" ", 1) for line in lines if " " in line)
            if len(lines) > _MOST_LINES:
                self._file.write_text("".join(f"{line}\n" for line in lines[_MOST_LINES // 2 :]))

    def is_of(self, asset_id: str, digest: str) -> bool:
        """Return whether the asset was created here for a file with this content."""
        return self._digests.get(asset_id) == digest

    def keep(self, asset_id: str, digest: str) -> None:
        """Remember that the asset is created for a file with this content."""
        self._digests[asset_id] = digest
        # Without the journal, uploads work; they are only not resumed.
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a") as file:
                file.write(f"{asset_id} {digest}\n")
