"""Passwords of the local stack's parts: created at the first start, each in a file of mode 0600."""

import os
import secrets
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read. It is replaced as a whole, so a crash leaves the old file."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def get_or_create(folder: Path, name: str) -> str:
    """Return the secret of this name. Creates it (256 random bits, URL-safe) if there is none."""
    path = folder / name
    if not path.exists():
        write_private(path, secrets.token_urlsafe(32))
    return path.read_text()
