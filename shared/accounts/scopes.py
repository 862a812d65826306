"""What a key may do: a part of the API, to read or to write. `tunes` is both; `tunes:read` and `tunes:write` are one each."""

from collections.abc import Collection, Sequence
from typing import Literal

from shared.errors import InvalidError

Access = Literal["read", "write"]
PARTS = ("assets", "tunes", "images", "admin")
SCOPES = tuple(f"{part}{access}" for part in PARTS for access in ("", ":read", ":write"))
USER_SCOPES = ("assets", "tunes", "images")
"""What the first key of an account may do; `admin` is for a key of its own."""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def check(scopes: Sequence[str]) -> list[str]:
    """Return the scopes, each once and in one order. Raises InvalidError for none and for one that does not exist."""
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        msg = f"scopes: {', '.join(unknown) or 'none given'}; choose from {', '.join(SCOPES)}"
        raise InvalidError(msg, loc=("body", "scopes"))
    return sorted(set(scopes), key=SCOPES.index)


def access_of(method: str) -> Access:
    """Return what a request of this HTTP method does."""
    return "read" if method in _READING else "write"


def allow(granted: Collection[str], part: str, access: Access) -> bool:
    """Say whether these scopes let their holder read or write this part of the API."""
    return part in granted or f"{part}:{access}" in granted
