"""Hostile images are harmless (promise 18): they are refused with a reason or come out clean, in bounded memory and time."""

import io
import struct
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageStat

from shared.errors import InvalidError
from shared.formats.image import CleanImage, clean

MAX_PIXELS = 16_000_000
Cleaned = Callable[[bytes], Awaitable[tuple[CleanImage, bytes]]]


def _image(mode: str = "RGB", size: tuple[int, int] = (96, 64)) -> Image.Image:
    image = Image.new("RGB", size, "teal")
    ImageDraw.Draw(image).ellipse((8, 8, 40, 40), fill="orange")
    return image.convert(mode)


def _encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _with_chunk(chunk: bytes) -> bytes:
    header, rest = (data := _encoded(_image(), "PNG"))[:33], data[33:]
    return header + chunk + rest


@pytest.fixture
def cleaned(tmp_path: Path) -> Cleaned:
    """Return a function that cleans a file's bytes and returns what was found of it and the bytes of the clean copy."""

    async def run(data: bytes) -> tuple[CleanImage, bytes]:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(data)
        said = await clean(source, target, max_pixels=MAX_PIXELS)
        return said, target.read_bytes()

    return run


REFUSED = {
    "text": (b"not an image", "not PNG, JPEG, WebP or AVIF"),
    "nothing": (b"", "not PNG, JPEG, WebP or AVIF"),
    "gif renamed to png": (_encoded(_image(), "GIF"), "not PNG, JPEG, WebP or AVIF"),
    "animated webp": (_encoded(_image(), "WEBP", save_all=True, append_images=[_image().rotate(90)]), "animated"),
    "truncated webp": (_encoded(_image(), "WEBP")[:-200], "damaged|not PNG"),
    "truncated avif": (_encoded(_image(), "AVIF")[:-200], "damaged|not PNG"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not PNG, JPEG, WebP or AVIF"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "not PNG, JPEG, WebP or AVIF"),
    "animated png": (
        _encoded(_image(), "PNG", save_all=True, append_images=[_image(size=(96, 64)).rotate(90)]),
        "animated",
    ),
    "truncated png": (_encoded(_image(), "PNG")[:-200], "damaged"),
    "truncated jpeg": (_encoded(_image(size=(500, 500)), "JPEG")[:-2000], "damaged"),
    "png with a wrong checksum": (_encoded(_image(), "PNG").replace(b"IDAT", b"IDAX", 1), "damaged|not PNG"),
    "bomb by its header": (_png(60_000, 60_000, zlib.compress(b"")), "60000 x 60000 px; at most 64000000"),
    "a speck": (_encoded(_image(size=(31, 64)), "PNG"), "31 x 64 px; each side must have at least 32"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_it_is_refused_with_a_reason(name: str, cleaned: Cleaned) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(InvalidError, match=reason):
        await cleaned(data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("cmyk jpeg", _encoded(_image("CMYK"), "JPEG")),
        ("palette png", _encoded(_image("P"), "PNG")),
        ("grey jpeg", _encoded(_image("L"), "JPEG")),
        ("one-bit png", _encoded(_image("1"), "PNG")),
        ("transparent png", _encoded(_image("RGBA"), "PNG")),
        ("16-bit png", _encoded(_image("L").convert("I").point(lambda v: v * 257).convert("I;16"), "PNG")),
        (
            "png with a bomb in a text chunk",
            _with_chunk(_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(300 * 2**20)))),
        ),
        ("png with a bomb as its profile", _with_chunk(_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(300 * 2**20))))),
        ("webp", _encoded(_image(), "WEBP", exif=b"payload", icc_profile=b"payload" * 100)),
        ("transparent webp", _encoded(_image("RGBA"), "WEBP")),
        ("avif", _encoded(_image(), "AVIF")),
        ("png with an archive behind it", _encoded(_image(), "PNG") + b"PK\x03\x04" + b"payload" * 50),
        ("jpeg with a script behind it", _encoded(_image(), "JPEG") + b"<script>payload</script>"),
        ("jpeg with a comment", _encoded(_image(), "JPEG", comment=b"payload")),
        ("jpeg with a profile", _encoded(_image(), "JPEG", icc_profile=b"payload" * 100)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_it_comes_out_clean(name: str, data: bytes, cleaned: Cleaned) -> None:
    said, copy = await cleaned(data)

    assert b"payload" not in copy
    with Image.open(io.BytesIO(copy)) as image:
        assert image.format == ("PNG" if said.file_format == "png" else "JPEG")
        assert image.size == (said.width, said.height) == (96, 64)
        assert image.mode in {"RGB", "L"}
        assert not set(image.info) - {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        # The disc is brighter than the background in every colour mode.
        disc, background = (ImageStat.Stat(image.convert("L").crop(box)).mean[0] for box in [(16, 16, 32, 32), (64, 0, 96, 64)])
        assert disc > background + 20


async def test_pixels_beyond_the_image_are_never_inflated(cleaned: Cleaned) -> None:
    said, copy = await cleaned(_png(64, 64, zlib.compress(bytes(500 * 2**20), 9)))

    assert (said.width, said.height) == (64, 64)
    assert len(copy) < 1000


async def test_a_photo_is_turned_upright_and_loses_its_place(cleaned: Cleaned) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (59.0, 54.0, 42.0)

    said, copy = await cleaned(_encoded(_image(), "JPEG", exif=exif))

    assert (said.width, said.height) == (64, 96)
    with Image.open(io.BytesIO(copy)) as image:
        assert not image.getexif()


async def test_the_largest_allowed_image_passes(cleaned: Cleaned) -> None:
    said, _ = await cleaned(_encoded(Image.new("RGB", (4000, 4000), "navy"), "JPEG"))

    assert (said.width, said.height) == (4000, 4000)
