"""API keys: random, with a prefix and a checksum, and stored as a hash only.

A key is `tsk_`, 43 characters of URL-safe base 64 (256 random bits) and 7 characters of checksum (CRC-32 of all before it, in
base 36 and padded). So a mistyped key is refused without the database, and a scanner can recognise a key in a leaked file.
"""

import hashlib
import secrets
import zlib

PREFIX = "tsk_"
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_CHECK_LENGTH = 7
HINT_LENGTH = 10


def _checksum(body: str) -> str:
    value = zlib.crc32(body.encode())
    digits = ""
    for _ in range(_CHECK_LENGTH):
        value, digit = divmod(value, 36)
        digits = _DIGITS[digit] + digits
    return digits


def new_secret() -> str:
    """Return a fresh key of 54 characters."""
    body = PREFIX + secrets.token_urlsafe(32)
    return body + _checksum(body)


def is_well_formed(secret: str) -> bool:
    """Say whether the text has a key's prefix and the right checksum."""
    body, check = secret[:-_CHECK_LENGTH], secret[-_CHECK_LENGTH:]
    return body.startswith(PREFIX) and secrets.compare_digest(_checksum(body).encode(), check.encode())


def sha256(secret: str) -> bytes:
    """Return the hash that the database stores. A key has 256 random bits, so a slow password hash would add nothing."""
    return hashlib.sha256(secret.encode()).digest()
