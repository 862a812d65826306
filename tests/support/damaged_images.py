"""Images as lists of pieces (chunks, segments, boxes), which a test drops, repeats, swaps and damages one by one."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from PIL import Image, ImageDraw

SIZES = [0, 1, 31, 32, 33, 100, 8000, 65_535, 2**24, 2**31 - 1, 2**32 - 1]
_EXIF = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
_HEIC = Path(__file__).parent / "heic"


def _drawn(mode: str) -> Image.Image:
    image = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
    ImageDraw.Draw(image).ellipse((8, 8, 40, 40), fill="orange")
    return image.convert(mode)


def _encoded(mode: str, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    _drawn(mode).save(buffer, file_format, **options)
    return buffer.getvalue()


def _pngs(data: bytes) -> list[bytes]:
    pieces, place = [data[:8]], 8
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4])
        pieces.append(data[place:end])
        place = end
    return pieces


def _jpegs(data: bytes) -> list[bytes]:
    pieces, place = [data[:2]], 2
    while data[place + 1] != 0xDA:
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4])
        pieces.append(data[place:end])
        place = end
    return [*pieces, data[place:]]


def _riffs(data: bytes) -> list[bytes]:
    pieces, place = [data[:12]], 12
    while place < len(data):
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        end = place + 8 + size + size % 2
        pieces.append(data[place:end])
        place = end
    return pieces


def _boxes(data: bytes) -> list[bytes]:
    pieces, place = [], 0
    while place < len(data):
        end = place + int.from_bytes(data[place : place + 4])
        pieces.append(data[place:end])
        place = end
    return pieces


HONEST: dict[str, tuple[Callable[[bytes], list[bytes]], bytes]] = {
    **{f"PNG {mode}": (_pngs, _encoded(mode, "PNG")) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")},
    "PNG 16 bit": (_pngs, _encoded("I;16", "PNG")),
    "PNG described": (_pngs, _encoded("RGB", "PNG", exif=_EXIF, icc_profile=b"profile" * 20)),
    "JPEG": (_jpegs, _encoded("RGB", "JPEG", exif=b"Exif\0\0" + _EXIF)),
    "JPEG CMYK": (_jpegs, _encoded("CMYK", "JPEG", icc_profile=b"profile" * 20)),
    "JPEG progressive": (_jpegs, _encoded("RGB", "JPEG", progressive=True)),
    "WebP": (_riffs, _encoded("RGB", "WEBP", exif=_EXIF)),
    "WebP lossless": (_riffs, _encoded("RGBA", "WEBP", lossless=True)),
    "AVIF": (_boxes, _encoded("RGB", "AVIF", exif=_EXIF)),
    "HEIC": (_boxes, (_HEIC / "turned.heic").read_bytes()),
}


def _sealed(chunk: bytes) -> bytes:
    """Return a PNG chunk whose length and checksum fit, so that more than those is looked at."""
    body = chunk[8:-4]
    return struct.pack(">I", len(body)) + chunk[4:8] + body + struct.pack(">I", zlib.crc32(chunk[4:8] + body))


@st.composite
def images(draw: st.DrawFn) -> bytes:
    """Draw an image file of some format, some of whose pieces are changed, repeated, swapped or gone."""
    split, data = HONEST[draw(st.sampled_from(sorted(HONEST)))]
    pieces = split(data)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(pieces) - 1))
        match draw(st.sampled_from(["drop", "repeat", "swap", "byte", "number", "cut", "foreign"])):
            case "drop" if len(pieces) > 1:
                pieces.pop(place)
            case "repeat":
                pieces[place:place] = [pieces[place]] * draw(st.sampled_from([1, 2, 50]))
            case "swap":
                other = draw(st.integers(0, len(pieces) - 1))
                pieces[place], pieces[other] = pieces[other], pieces[place]
            case "byte" if pieces[place]:
                pieces[place] = _with(draw, pieces[place], draw(st.binary(min_size=1, max_size=1)))
            case "number" if pieces[place]:
                order, width = draw(st.sampled_from(["big", "little"])), draw(st.sampled_from([2, 3, 4]))
                number = draw(st.sampled_from(SIZES)) % 256**width
                pieces[place] = _with(draw, pieces[place], number.to_bytes(width, order))
            case "cut":
                pieces[place] = pieces[place][: draw(st.integers(0, len(pieces[place])))]
            case _:
                others: Any = HONEST[draw(st.sampled_from(sorted(HONEST)))]
                pieces.insert(place, draw(st.sampled_from(others[0](others[1]))))
        if split is _pngs and draw(st.booleans()):
            pieces = [_sealed(piece) if len(piece) >= 12 and piece[1:4] != b"PNG" else piece for piece in pieces]
    return b"".join(pieces)


def _with(draw: st.DrawFn, piece: bytes, value: bytes) -> bytes:
    place = draw(st.integers(0, len(piece) - 1))
    return piece[:place] + value + piece[place + len(value) :]
