"""Identifiers: a prefix, an underscore and a lower-case ULID, such as `tune_01hen39pazf6s9jqpkfj05y0vx`.

The layout is the ULID specification's (github.com/ulid/spec): 48 bits of milliseconds since 1970 and 80 random bits,
26 characters of Crockford's base 32. Lower case, as OctoAI's clients print them.
"""

import secrets
import time

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
ULID_LENGTH = 26


def new_ulid() -> str:
    """Return a fresh ULID of 26 lower-case characters; ULIDs sort by their creation time in milliseconds."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


def new_id(kind: str) -> str:
    """Return a fresh identifier of the given kind, e.g. `new_id("asset")`."""
    return f"{kind}_{new_ulid()}"


def is_id(kind: str, text: str) -> bool:
    """Say whether `text` has the form of an identifier of this kind, not whether one exists."""
    head, _, tail = text.partition("_")
    return head == kind and len(tail) == ULID_LENGTH and all(c in _CROCKFORD for c in tail)
