"""Where a downloaded asset is stored, and how its file is named."""

import os
from pathlib import Path

_HEAD_BYTES = 512
_STARTS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg"}
_TAR_AT = 257
"""Where the header of a tar has its mark."""


def size(path: Path) -> int:
    """Return the size of a file in bytes, 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def target(path: str | Path | None) -> tuple[Path, str | None]:
    """Return the folder of a download, and the name of its file if `path` gives one."""
    if path is None:
        return Path(), None
    if Path(path).is_dir() or str(path).endswith(os.sep):
        Path(path).mkdir(parents=True, exist_ok=True)
        return Path(path), None
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    return Path(path).parent, Path(path).name


def finish(part: Path, folder: Path, name: str, *, has_name: bool) -> Path:
    """Give a complete download its name, and return its path. An asset's name gets the ending that its content calls for."""
    path = folder / (name if has_name else f"{name}{_ending(part)}")
    part.replace(path)
    return path


def _ending(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    for start, ending in _STARTS.items():
        if head.startswith(start):
            return ending
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return ".webp"
    if head[4:8] == b"ftyp":
        return ".avif" if head[8:12] in {b"avif", b"avis"} else ".heic"
    # Everything else that a library holds is weights: a packed folder, or one safetensors file.
    return ".tar" if head[_TAR_AT : _TAR_AT + 5] == b"ustar" else ".safetensors"
