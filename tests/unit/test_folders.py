"""Folders of training images: captions beside images, and the names that kohya's trainer gives folders."""

from pathlib import Path

import pytest

from tunesmith.client import TunesmithApiError
from tunesmith.folders import read_folders

PNG = b"\x89PNG\r\n\x1a\n"


def _write(folder: Path, *names: str, **captions: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(PNG)
    for name, text in captions.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_a_folders_name_gives_trigger_word_class_and_captions(tmp_path: Path) -> None:
    found = read_folders([_write(tmp_path / "10_sks1 big dog", "a.png", "b.png", a="sks1 on grass")])

    assert (found.trigger_word, found.subject) == ("sks1", "big dog")
    assert found.captions == ["sks1 on grass", "sks1 big dog"]
    assert found.trigger_word_or(None) == "sks1"
    assert found.trigger_word_or("xyz") == "xyz"
    assert found.tune_name_or(tmp_path) == "sks1-big-dog"
    assert any("the number of repeats is not used" in note for note in found.notes)


def test_a_folder_of_such_folders_is_read_with_the_images_beside_them(tmp_path: Path) -> None:
    _write(tmp_path / "img" / "10_sks1 dog", "a.png")
    _write(tmp_path / "img" / "5_sks1", "b.png")
    _write(tmp_path / "img" / "other", "no.png")
    _write(tmp_path / "img", "c.png")

    found = read_folders([tmp_path / "img"])

    captions = {image.name: caption for image, caption in zip(found.images, found.captions, strict=True)}
    assert captions == {"a.png": "sks1 dog", "b.png": "sks1", "c.png": None}


def test_folders_of_several_trigger_words_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "10_sks1 dog", "a.png")
    _write(tmp_path / "10_abc cat", "b.png")

    with pytest.raises(TunesmithApiError, match=r"several trigger words \(abc, sks1\), and a tune has one"):
        read_folders([tmp_path])


@pytest.mark.parametrize("name", ["photos", "_sks1 dog", "ten_sks1 dog", "10sks1"])
def test_another_name_says_nothing(tmp_path: Path, name: str) -> None:
    found = read_folders([_write(tmp_path / name, "a.png")])

    assert (found.trigger_word, found.captions) == (None, [None])
    with pytest.raises(TunesmithApiError, match="the trigger word is missing: give one, or name the folder"):
        found.trigger_word_or(None)


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(TunesmithApiError, match=f"{tmp_path}: there is no image: give image files"):
        read_folders([tmp_path])


@pytest.mark.parametrize(("images", "steps"), [(1, 400), (5, 500), (20, 2000)])
def test_the_steps_follow_the_number_of_images(tmp_path: Path, images: int, steps: int) -> None:
    assert read_folders([_write(tmp_path, *(f"{number}.png" for number in range(images)))]).default_steps == steps
