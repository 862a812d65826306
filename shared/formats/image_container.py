"""What of an image file decides about its pixels, taken apart from what only describes them.

Decoders read metadata before they read pixels, and refuse the whole file for a mistyped tag or a long text. So the decoder gets
a file without metadata. The two that change how an image looks, its orientation and its colour profile, are returned beside it,
and whoever cannot read them does without.

Formats: PNG (www.w3.org/TR/png-3), JPEG (ITU T.81, with JFIF, Exif 2.32 and ICC.1 annex B.4), and AVIF and HEIC (`image_boxes`).
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from shared.formats import image_boxes

MAX_PROFILE_BYTES = 4 * 2**20
"""A profile of a printer has a few megabytes at most; a longer one is left out."""
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"}
_JPEG_START = b"\xff\xd8"
_MARKERS_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
_APP1, _APP2, _APP14, _APP15, _COMMENT, _SCAN = 0xE1, 0xE2, 0xEE, 0xEF, 0xFE, 0xDA
_ORIENTATION = 0x0112
_INTEGERS = {3: "H", 4: "I"}
"""Exif's types of unsigned integers."""
_EXIF, _PROFILE = b"Exif\0\0", b"ICC_PROFILE\0"


@dataclass
class Container:
    """An image file without its metadata, and the two pieces of metadata that matter; empty where there is none."""

    data: bytes
    exif: bytes = b""
    profile: bytes = b""
    is_animated: bool = False


def take_apart(data: bytes) -> Container:
    """Return the parts of a PNG, JPEG, AVIF or HEIC file. Any other file, and what is damaged in one, is left to the decoder."""
    if data.startswith(_PNG_START):
        return _take_png_apart(data)
    if data.startswith(_JPEG_START):
        return _take_jpeg_apart(data)
    if image_boxes.is_heif(data):
        return Container(image_boxes.without_metadata(data))
    return Container(data)


def orientation(exif: bytes) -> int:
    """Return the orientation of an Exif block (Exif 2.32, 4.6.4: 1 to 8); 1, upright, where there is none.

    Only this entry is read. Pillow reads the whole directory, and gives up on one that has a mistake anywhere.
    """
    tiff = exif.removeprefix(_EXIF)
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (place,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, place)
        for entry in range(place + 2, place + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == _ORIENTATION and kind in _INTEGERS:
                (value,) = struct.unpack_from(order + _INTEGERS[kind], tiff, entry + 8)
                return value if 1 <= value <= 8 else 1  # noqa: PLR2004 - see above
    except struct.error:
        pass
    return 1


def _take_png_apart(data: bytes) -> Container:
    found = Container(b"")
    kept = [_PNG_START]
    for kind, body, whole in _png_chunks(data):
        if kind in _PNG_KEPT or not kind:
            kept.append(whole)
        elif kind == b"iCCP":
            found.profile = _png_profile(body)
        elif kind == b"eXIf":
            found.exif = body
        elif kind == b"acTL" and len(body) == struct.calcsize(">II"):
            found.is_animated = struct.unpack(">II", body)[0] > 1
    found.data = b"".join(kept)
    return found


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield kind, body and bytes of each chunk; last, without a kind, what is no whole chunk."""
    place = len(_PNG_START)
    while place < len(data):
        header = data[place : place + 8]
        length = struct.unpack(">I", header[:4])[0] if len(header) == 8 else len(data)  # noqa: PLR2004 - a chunk's length and kind
        end = place + 12 + length
        if end > len(data):
            yield b"", b"", data[place:]
            return
        kind = header[4:]
        yield kind, data[place + 8 : end - 4], data[place:end]
        if kind == b"IEND":
            return
        place = end


def _png_profile(body: bytes) -> bytes:
    """Return the profile of an iCCP chunk: a name, a NUL, the compression method 0, and the compressed profile."""
    _, _, rest = body.partition(b"\0")
    inflate = zlib.decompressobj()
    try:
        profile = inflate.decompress(rest[1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return b""
    return profile if inflate.eof else b""


def _take_jpeg_apart(data: bytes) -> Container:
    found = Container(b"")
    kept = [_JPEG_START]
    profile: dict[int, bytes] = {}
    for marker, body, whole in _jpeg_segments(data):
        is_metadata = _APP1 <= marker <= _APP15 and marker != _APP14
        if not (is_metadata or marker == _COMMENT):
            kept.append(whole)
        elif marker == _APP1 and body.startswith(_EXIF) and not found.exif:
            found.exif = body[len(_EXIF) :]
        elif marker == _APP2 and body.startswith(_PROFILE) and len(body) > len(_PROFILE) + 2:
            profile[body[len(_PROFILE)]] = body[len(_PROFILE) + 2 :]
    found.data = b"".join(kept)
    joined = b"".join(profile[number] for number in sorted(profile))
    found.profile = joined if len(joined) <= MAX_PROFILE_BYTES else b""
    return found


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield marker, body and bytes of each segment; with the first scan, or at what is no segment, all the rest."""
    place = len(_JPEG_START)
    while place + 4 <= len(data) and data[place] == 0xFF:  # noqa: PLR2004 - every marker begins so
        marker = data[place + 1]
        if marker == 0xFF or marker in _MARKERS_WITHOUT_LENGTH:  # noqa: PLR2004 - a fill byte
            place += 1 if marker == 0xFF else 2  # noqa: PLR2004
            continue
        end = place + 2 + struct.unpack(">H", data[place + 2 : place + 4])[0]
        if marker == _SCAN or end > len(data) or end < place + 4:
            break
        yield marker, data[place + 4 : end], data[place:end]
        place = end
    yield 0, b"", data[place:]
