"""Hides the metadata of an AVIF or HEIC file from its decoder, which refuses the whole file for a mistake in them.

The format (ISO/IEC 23008-12, HEIF) is boxes inside boxes: `meta` holds `iinf`, which has an `infe` for each item. The type of an
item tells what it is: an image, or `Exif` and `mime` (XMP), which describe one. How an image is turned, and its profile, are
properties of the image itself, so nothing is lost.
"""

import struct
from collections.abc import Iterator

_METADATA = {b"Exif", b"mime"}
_HIDDEN = b"free"
"""A type that decoders pass over."""
_MOST_ITEMS = 10_000
"""An image of 64 megapixels in tiles of 512 px has 250 items."""


def is_heif(data: bytes) -> bool:
    """Say whether the file is made of such boxes."""
    return data[4:8] == b"ftyp"


def without_metadata(data: bytes) -> bytes:
    """Return the file with the types of its items of metadata changed; all bytes keep their places. It may be damaged."""
    places: list[int] = []
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            # After version and flags, as in each of these boxes.
            places += _items_of_metadata(data, start + 4, end)
    if not places:
        return data
    changed = bytearray(data)
    for place in places:
        changed[place : place + 4] = _HIDDEN
    return bytes(changed)


def _items_of_metadata(data: bytes, start: int, end: int) -> Iterator[int]:
    """Yield where the types of the items of metadata stand."""
    for kind, place, last in _boxes(data, start, end):
        if kind != b"iinf":
            continue
        count_bytes = 2 if data[place] == 0 else 4
        for item, first, _ in _boxes(data, place + 4 + count_bytes, last):
            # An id of 2 bytes, or 4 in version 3, and 2 bytes about protection come before the type.
            at = first + 4 + (4 if data[first : first + 1] == b"\x03" else 2) + 2
            if item == b"infe" and data[first : first + 1] in {b"\x02", b"\x03"} and data[at : at + 4] in _METADATA:
                yield at


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the contents of each whole box between two places."""
    for _ in range(_MOST_ITEMS):
        if start + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, start)
        header = 8
        if size == 1 and start + 16 <= end:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            header = 16
        elif size == 0:
            # The last box goes on to the end.
            size = end - start
        if size <= header or start + size > end:
            return
        yield kind, start + header, start + size
        start += size
