"""AVIF and HEIC: metadata never decides, colours become sRGB, and the confined child can decode both.

`tests/support/heic` has files of pillow-heif 1.8 and x265, of drawings of this project: one that is turned by a property and an
Exif block, one whose Exif block is wrong in two places, one with a profile of Display P3, and one that holds two images.
"""

import io
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from shared.errors import InvalidError
from shared.formats import image_boxes, pillow
from shared.formats.image import CleanImage, clean, clean_file

SAMPLES = Path(__file__).parents[1] / "support" / "heic"
HEIC = {file.stem: file.read_bytes() for file in sorted(SAMPLES.glob("*.heic"))}
EXIF = b"II*\0\x08\0\0\0\x02\0\x0f\x01\x02\0\x03\0\0\0ab\0\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
"""Two entries: the camera's maker, and a quarter turn."""


def _avif(exif: bytes = EXIF, **options: object) -> bytes:
    image = Image.new("RGB", (128, 96), "white")
    ImageDraw.Draw(image).rectangle((0, 0, 64, 48), fill="red")
    buffer = io.BytesIO()
    image.save(buffer, "AVIF", exif=exif, **options)
    return buffer.getvalue()


def _broken(data: bytes, by: bytes) -> bytes:
    """Return a file whose Exif block begins with other bytes."""
    place = data.index(b"II*\0")
    return data[:place] + by + data[place + len(by) :]


def _cleaned(data: bytes) -> tuple[CleanImage, Image.Image]:
    target = io.BytesIO()
    said = clean_file(io.BytesIO(data), target, 1_000_000)
    with Image.open(target) as image:
        image.load()
    return said, image.convert("RGB")


def _is_red(image: Image.Image, place: tuple[int, int]) -> bool:
    red, green, _ = image.getpixel(place)
    return (red > 200, green < 60) == (True, True)


@pytest.mark.parametrize(
    "data",
    [
        HEIC["turned"],
        HEIC["broken-exif"],
        _avif(),
        _broken(_avif(), b"XXXX"),
        _broken(_avif(), b"II*\0\xff\xff\xff\xff"),
        _avif(xmp=b"<x:xmpmeta"),
    ],
    ids=["HEIC", "HEIC, broken", "AVIF", "AVIF, no TIFF", "AVIF, no directory", "AVIF, cut XMP"],
)
def test_an_image_is_upright_whatever_its_metadata_are(data: bytes) -> None:
    said, image = _cleaned(data)
    assert (said.width, said.height, said.file_format, said.scaled_from) == (96, 128, "jpg", None)
    assert [_is_red(image, place) for place in ((80, 20), (10, 20), (80, 110))] == [True, False, False]


def test_colours_of_a_heic_file_are_converted_to_srgb() -> None:
    _, image = _cleaned(HEIC["display-p3"])
    assert max(abs(one - other) for one, other in zip(image.getpixel((48, 48)), (217, 80, 45), strict=True)) < 5


def test_a_file_that_holds_several_images_is_refused() -> None:
    with pytest.raises(InvalidError, match="the file holds several; send one of them as PNG or JPEG"):
        _cleaned(HEIC["two-images"])


@pytest.mark.parametrize("data", [HEIC["turned"], _avif()], ids=["HEIC", "AVIF"])
async def test_the_confined_child_decodes_it(tmp_path: Path, data: bytes) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)

    said = await clean(source, target, max_pixels=1_000_000)

    with Image.open(target) as image:
        assert (image.size, _is_red(image, (80, 20)), said.width) == ((96, 128), True, 96)


def test_a_heic_file_is_named_where_it_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow, "FORMATS", ["PNG", "JPEG", "WEBP", "AVIF"])
    with pytest.raises(InvalidError, match="the file is HEIC, which this server cannot read without the package pi-heif"):
        _cleaned(HEIC["turned"])


@pytest.mark.parametrize("data", [HEIC["turned"], _avif()], ids=["HEIC", "AVIF"])
def test_only_the_types_of_metadata_change(data: bytes) -> None:
    changed = image_boxes.without_metadata(data)
    assert len(changed) == len(data)
    assert sum(one != other for one, other in zip(changed, data, strict=True)) == len(b"Exif")
    assert data.count(b"Exif") - changed.count(b"Exif") == 1


@pytest.mark.parametrize("cut", range(0, 400, 13))
def test_a_cut_file_is_left_to_its_decoder(cut: int) -> None:
    assert len(image_boxes.without_metadata(HEIC["turned"][:cut])) == min(cut, len(HEIC["turned"]))
    with pytest.raises(InvalidError):
        _cleaned(HEIC["turned"][:cut])
