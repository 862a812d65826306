"""Images as phones, cameras and editors write them: metadata never decides, colours become sRGB, large ones are scaled down."""

import io
import struct

import pytest
from PIL import Image, ImageCms, ImageDraw

from shared.errors import InvalidError
from shared.formats.image import CleanImage, clean_file

MAX_PIXELS = 1_000_000
CREATED = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def clean(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[CleanImage, Image.Image]:
    target = io.BytesIO()
    said = clean_file(io.BytesIO(data), target, max_pixels)
    with Image.open(target) as image:
        image.load()
    return said, image


def photo(size: tuple[int, int] = (128, 96), mode: str = "RGB") -> Image.Image:
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).rectangle((0, 0, size[0] // 2, size[1] // 2), fill="red")
    return image.convert(mode)


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def exif(*entries: tuple[int, int, int, bytes], orientation: int = 6, endian: str = "<") -> bytes:
    """Return an Exif block by hand: entries are (tag, type, count, value or offset)."""
    every = sorted([(0x0112, 3, 1, struct.pack(endian + "HH", orientation, 0)), *entries])
    offset, directory, values = 8 + 2 + 12 * len(every) + 4, b"", b""
    for tag, kind, count, value in every:
        directory += struct.pack(endian + "HHI", tag, kind, count)
        if len(value) <= 4:
            directory += value.ljust(4, b"\0")
        else:
            directory += struct.pack(endian + "I", offset + len(values))
            values += value
    start = (b"II" if endian == "<" else b"MM") + struct.pack(endian + "HI", 42, 8) + struct.pack(endian + "H", len(every))
    return start + directory + struct.pack(endian + "I", 0) + values


def jpeg(block: bytes) -> bytes:
    data, body = encoded(photo(), "JPEG"), b"Exif\0\0" + block
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


@pytest.mark.parametrize(
    ("block", "size"),
    [
        (exif(), (96, 128)),
        (exif(endian=">"), (96, 128)),
        (exif((0x9204, 10, 1, struct.pack("<ii", -1, 0))), (96, 128)),
        (exif((0x011A, 5, 1, struct.pack("<II", 1, 0))), (96, 128)),
        (exif((0x011A, 5, 2, struct.pack("<IIII", 72, 1, 72, 1))), (96, 128)),
        (exif((0x0128, 7, 3, b"abc")), (96, 128)),
        (exif((0x010F, 2, 5, b"\xff\xfe\x81\x00\x00")), (96, 128)),
        (exif((0x9286, 7, 5000, struct.pack("<I", 900_000))), (96, 128)),
        (exif((0x8769, 4, 1, struct.pack("<I", 8))), (96, 128)),
        (exif(orientation=0), (128, 96)),
        (exif(orientation=9), (128, 96)),
        (b"", (128, 96)),
        (b"II*\0", (128, 96)),
        (b"no Exif at all", (128, 96)),
    ],
    ids=[
        "a phone's",
        "big-endian",
        "a denominator of 0",
        "a resolution of 1/0",
        "two rationals where one belongs",
        "bytes where a number belongs",
        "text that is no ASCII",
        "a value beyond the end",
        "a directory that contains itself",
        "orientation 0",
        "orientation 9",
        "empty",
        "cut",
        "something else",
    ],
)
def test_a_broken_exif_block_never_refuses_an_image(block: bytes, size: tuple[int, int]) -> None:
    said, image = clean(jpeg(block))
    assert (said.width, said.height) == image.size == size
    assert said.scaled_from is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_upright(orientation: int) -> None:
    # Each of the eight tells how to turn the stored image; this is the inverse.
    stored = {
        1: photo(),
        2: photo().transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: photo().transpose(Image.Transpose.ROTATE_180),
        4: photo().transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: photo().transpose(Image.Transpose.TRANSPOSE),
        6: photo().transpose(Image.Transpose.ROTATE_90),
        7: photo().transpose(Image.Transpose.TRANSVERSE),
        8: photo().transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    mark = Image.Exif()
    mark[0x0112] = orientation

    for file_format in ("PNG", "JPEG", "WEBP", "AVIF"):
        _, image = clean(encoded(stored, file_format, exif=mark.tobytes()))
        assert image.size == (128, 96), file_format
        red, green, _ = image.convert("RGB").getpixel((20, 20))
        assert (red > 200, green > 60) == (True, False), file_format


def profile(primaries: tuple[tuple[float, float, float], ...], gamma: float) -> bytes:
    """Return a small ICC version 2 matrix profile (ICC.1:2001-04, 6.3)."""

    def fixed(*values: float) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + bytes(78),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1.0, 0.8249),
    }
    for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True):
        tags[name] = b"XYZ \0\0\0\0" + fixed(*xyz)
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        tags[name] = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        padded = value + bytes(-len(value) % 4)
        table += name + struct.pack(">II", start + len(body), len(padded))
        body += padded
    head = struct.pack(">I", start + len(body)) + b"\0\0\0\0\x02\x10\0\0mntrRGB XYZ " + struct.pack(">6H", 2026, 1, 1, 0, 0, 0)
    head += b"acsp" + bytes(28) + fixed(0.9642, 1.0, 0.8249) + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body


P3 = profile(((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)), 2.2)
PROPHOTO = profile(((0.7977, 0.2880, 0.0), (0.1352, 0.7119, 0.0), (0.0313, 0.0001, 0.8249)), 1.8)


@pytest.mark.parametrize("icc", [P3, PROPHOTO], ids=["Display P3", "ProPhoto"])
@pytest.mark.parametrize(("file_format", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("JPEG", "RGB"), ("WEBP", "RGB")])
def test_colours_are_converted_to_srgb_before_their_profile_is_dropped(icc: bytes, file_format: str, mode: str) -> None:
    colour = (200, 90, 60)
    source = Image.new("RGB", (96, 96), colour)
    expected = ImageCms.profileToProfile(source, ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB"))
    assert expected is not None
    meant = expected.getpixel((50, 50))
    assert max(abs(one - other) for one, other in zip(meant, colour, strict=True)) > 10

    _, image = clean(encoded(source.convert(mode), file_format, icc_profile=icc))

    got = image.convert("RGB").getpixel((50, 50))
    assert max(abs(one - other) for one, other in zip(meant, got, strict=True)) < 4
    assert "icc_profile" not in image.info


@pytest.mark.parametrize("icc", [b"\0" * 500, P3[:200], CREATED[:-100]], ids=["zeros", "cut", "cut at its end"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_broken_profile_never_refuses_an_image(icc: bytes, mode: str) -> None:
    said, _ = clean(encoded(photo(mode=mode), "JPEG", icc_profile=icc))
    assert (said.width, said.height) == (128, 96)


def test_a_profile_of_another_kind_of_image_is_passed_over() -> None:
    _, image = clean(encoded(photo(mode="L"), "PNG", icc_profile=P3))
    assert image.getpixel((100, 80)) == 255


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [
        ("JPEG", "RGB"),
        ("JPEG", "CMYK"),
        ("PNG", "RGB"),
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("PNG", "L"),
        ("PNG", "1"),
        ("WEBP", "RGB"),
    ],
)
def test_an_image_with_more_pixels_than_are_stored_is_scaled_down_and_that_is_said(file_format: str, mode: str) -> None:
    said, image = clean(encoded(photo((2400, 1800), mode), file_format))

    assert (said.width, said.height) == image.size
    assert 0.98 * MAX_PIXELS < said.width * said.height <= MAX_PIXELS
    assert said.width / said.height == pytest.approx(4 / 3, abs=0.005)
    assert said.scaled_from == (2400, 1800)
    assert said.notice == f"scaled down from 2400 x 1800 px to {said.width} x {said.height} px, the most that is stored"
    red, green, _ = image.convert("RGB").getpixel((image.width // 4, image.height // 4))
    if mode not in {"L", "1"}:
        assert (red > 200, green > 60) == (True, False)


def test_one_that_is_turned_upright_tells_its_upright_size() -> None:
    mark = Image.Exif()
    mark[0x0112] = 6
    said, image = clean(encoded(photo((2400, 1800)), "JPEG", exif=mark.tobytes()))
    assert image.width < image.height
    assert said.scaled_from == (1800, 2400)


def test_a_jpeg_beyond_what_is_decoded_is_decoded_at_a_smaller_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.formats.image.MAX_DECODED_PIXELS", 2_000_000)
    said, _ = clean(encoded(photo((2400, 1800)), "JPEG"))
    assert said.scaled_from == (2400, 1800)
    with pytest.raises(InvalidError, match="2400 x 1800 px; at most 2000000 px in all are allowed; scale it down"):
        clean(encoded(photo((2400, 1800)), "PNG"))


@pytest.mark.parametrize(("file_format", "stored"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "jpg"), ("AVIF", "jpg")])
def test_the_stored_format_is_one_that_every_client_knows(file_format: str, stored: str) -> None:
    said, image = clean(encoded(photo(), file_format))
    assert (said.file_format, said.notice) == (stored, "")
    assert image.size == (128, 96)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (encoded(photo(), "GIF"), "a GIF image, "),
        (encoded(photo(), "BMP"), "a BMP image, "),
        (encoded(photo(), "TIFF"), "a TIFF image, "),
        (b"8BPS\0\x01" + bytes(200), "a Photoshop image, "),
        (b"\xff\x0a" + bytes(200), "a JPEG XL image, "),
        (b"\0\0\0\x0cjP  " + bytes(200), "a JPEG 2000 image, "),
        (b"plain text", ""),
        (b"BM is the start of a text", ""),
    ],
)
def test_an_image_of_another_format_is_refused_by_its_name(data: bytes, kind: str) -> None:
    with pytest.raises(InvalidError) as refused:
        clean(data)
    assert str(refused.value) == f"the file is {kind}not PNG, JPEG, WebP or AVIF; save the image as one of them"
