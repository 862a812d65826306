"""What is known of objects in the store: hash and size, type, age, and credentials for one of them."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from minio.datatypes import Object

_CONTENT_TYPES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "webp": "image/webp"}
"""What a browser may show, by the end of a key. Everything else is bytes."""


@dataclass(frozen=True)
class Stored:
    """The SHA-256 (hexadecimal) and the size in bytes of an object that was written or read."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Grant:
    """Credentials that expire."""

    access_key: str
    secret_key: str
    session_token: str | None


@dataclass(frozen=True)
class Listed:
    """An object in a listing."""

    key: str
    size_bytes: int
    age_s: float


def hash_file(path: Path) -> Stored:
    """Return the SHA-256 and the size of a file."""
    with path.open("rb") as file:
        return Stored(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)


def content_type(key: str) -> str:
    """Return the type that an object is served with, by the end of its key."""
    return _CONTENT_TYPES.get(key.rpartition(".")[2], "application/octet-stream")


def listed(item: Object) -> Listed:
    """Return what a listing tells of an object."""
    return Listed(item.object_name or "", item.size or 0, age_s(item.last_modified))


def age_s(modified: object) -> float:
    """Return how long ago that was, 0 where the store does not say."""
    return (datetime.now(UTC) - modified).total_seconds() if isinstance(modified, datetime) else 0.0
