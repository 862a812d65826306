"""What a key may do: `tunes:read` and `tunes:write` allow one access to a part of the API, `tunes` allows both."""

from collections.abc import Collection, Sequence
from typing import Literal

from shared.errors import InvalidError

Access = Literal["read", "write"]
PARTS = ("assets", "tunes", "images", "admin")
SCOPES = tuple(f"{part}{access}" for part in PARTS for access in ("", ":read", ":write"))
USER_SCOPES = ("assets", "tunes", "images")
"""The scopes of an account's first key; `admin` belongs to a key of its own."""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


def check(scopes: Sequence[str]) -> list[str]:
    """Return the scopes without repeats, in the order of `SCOPES`. Raises InvalidError for none, or one that does not exist."""
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        problem = (
            f"{', '.join(map(repr, unknown))} {'does' if len(unknown) == 1 else 'do'} not exist" if unknown else "none is given"
        )
        msg = f"scopes: {problem}; choose from {', '.join(SCOPES)}"
        raise InvalidError(msg, loc=("body", "scopes"))
    return sorted(set(scopes), key=SCOPES.index)


def access_of(method: str) -> Access:
    """Return the access that a request of this HTTP method needs."""
    return "read" if method in _READING else "write"


def allow(granted: Collection[str], part: str, access: Access) -> bool:
    """Say whether these scopes allow this access to this part of the API."""
    return part in granted or f"{part}:{access}" in granted
