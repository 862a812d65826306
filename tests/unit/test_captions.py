"""Caption files as editors on Windows, macOS and Linux write them."""

import unicodedata
from pathlib import Path

import pytest

from tunesmith.captions import MAX_BYTES, MAX_CAPTION_BYTES, CaptionError, caption_of

TEXT = "a sks1 star on grass"
QUOTED = "a sks1 star, it\u2019s blue \u2013 caf\u00e9"


def _caption(folder: Path, data: bytes, name: str = "a.txt") -> str | None:
    (folder / name).write_bytes(data)
    found = caption_of(folder / "a.png")
    return found.text if found else None


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        b"\xef\xbb\xbf\xef\xbb\xbf" + TEXT.encode(),
        TEXT.encode("utf-16"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
        b"a sks1 star\r\non grass\r\n",
        b" a sks1\tstar\non\xc2\xa0grass ",
    ],
)
def test_every_encoding_gives_the_same_one_line(tmp_path: Path, data: bytes) -> None:
    assert _caption(tmp_path, data) == TEXT


@pytest.mark.parametrize("text", [QUOTED, "猫 sks1 😀", "sks1 звезда"])
def test_other_letters_are_read(tmp_path: Path, text: str) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert _caption(tmp_path, text.encode(encoding)) == text


def test_windows_1252_is_read_and_said(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(QUOTED.encode("cp1252"))

    found = caption_of(tmp_path / "a.png")

    assert found is not None
    assert found.text == QUOTED
    assert found.note.startswith(f"{tmp_path}/a.txt is not UTF-8 and was read as Windows-1252")
    assert "caf\u00e9" in found.note


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("草の上の星です".encode("shift-jis"), "neither UTF-8, UTF-16 nor Windows-1252: save it as UTF-8"),
        ("звезда на траве".encode("cp1251"), "neither UTF-8, UTF-16 nor Windows-1252"),
        (b"a sks1 star \x81", "neither UTF-8, UTF-16 nor Windows-1252"),
        (b"sks1\x00 star", r"control character U\+0000.*save it as UTF-8"),
        (b"sks1\x1b[31m star", r"control character U\+001B"),
        (b"\xff\xfea\x00\x00\xd8b\x00", "begins as UTF-16-LE, and is damaged at byte 2"),
        (b"\xef\xbb\xbfa \xff", "begins as UTF-8, and is damaged at byte 2"),
        (b"a" * (MAX_BYTES + 1), f"at most {MAX_BYTES} bytes"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_remedy(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(CaptionError, match=says) as refused:
        _caption(tmp_path, data)
    assert str(refused.value).startswith(f"{tmp_path}/a.txt: ")


def test_a_long_caption_is_read_whole_up_to_the_servers_limit(tmp_path: Path) -> None:
    text = "word " * (MAX_CAPTION_BYTES // 5) + "\u00e9"
    assert _caption(tmp_path, text[5:].encode("utf-16")) == text[5:]

    with pytest.raises(CaptionError, match=r"a\.txt: the caption has 8002 bytes as UTF-8; at most 8000 are allowed: shorten it"):
        _caption(tmp_path, text.encode("utf-16"))


@pytest.mark.parametrize("data", [b"", b" \r\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\xff\xfe\n\x00"])
def test_a_blank_file_is_no_caption(tmp_path: Path, data: bytes) -> None:
    assert _caption(tmp_path, data) is None


@pytest.mark.parametrize("name", ["a.txt", "a.caption", "a.TXT", "a.Caption", "a.png.txt"])
def test_a_captions_file_is_found_by_each_of_its_names(tmp_path: Path, name: str) -> None:
    assert _caption(tmp_path, TEXT.encode(), name) == TEXT


@pytest.mark.parametrize("name", ["A.txt", "a.json", "b.txt", "a.2.txt", "._a.txt"])
def test_a_file_of_another_name_is_no_caption(tmp_path: Path, name: str) -> None:
    assert _caption(tmp_path, TEXT.encode(), name) is None


def test_two_files_must_agree(tmp_path: Path) -> None:
    _caption(tmp_path, TEXT.encode(), "a.caption")
    assert _caption(tmp_path, TEXT.encode("utf-16")) == TEXT

    with pytest.raises(CaptionError, match=r"a\.caption, .*a\.txt: they hold different captions for .*a\.png: keep one"):
        _caption(tmp_path, b"another")


def test_a_name_is_the_same_however_its_accents_are_stored(tmp_path: Path) -> None:
    (tmp_path / unicodedata.normalize("NFD", "\u00e9.txt")).write_bytes(TEXT.encode())

    found = caption_of(tmp_path / unicodedata.normalize("NFC", "\u00e9.png"))

    assert found is not None
    assert found.text == TEXT


def test_a_folder_of_that_name_is_no_caption(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()

    assert caption_of(tmp_path / "a.png") is None
