"""The lint of captions: the trigger word as a word, and captions that a text encoder reads in parts."""

import pytest
from pydantic import ValidationError

from services.scheduler.datasets.schemas import DatasetFile
from services.scheduler.schemas import MAX_CAPTION_BYTES, BaseCheckpoint, Details, File
from services.scheduler.whatif.lint import lint_request
from shared.formats.clip.tokens import MOST_AT_ONCE
from tunesmith import captions


def details(files: list[File], steps: int = 400) -> Details:
    base = BaseCheckpoint(checkpoint_id="octoai:tiny-sd15")
    return Details(base_checkpoint=base, files=files, steps=steps, trigger_words=["sks1"])


def codes(caption: str | None) -> list[str]:
    files = [File(file_id=f"file_{number}", caption=caption if number == 0 else f"sks1 {number}") for number in range(4)]
    return [found.code for found in lint_request(details(files), 1) if found.file_id == "file_0"]


@pytest.mark.parametrize("caption", ["a SKS1 dog", "sks 1", None, "sks1's dog"])
def test_a_caption_with_the_trigger_word_gets_no_warning(caption: str | None) -> None:
    assert codes(caption) == []


@pytest.mark.parametrize("caption", ["a sks12 dog", "a dog"])
def test_a_caption_without_the_trigger_word_gets_one(caption: str) -> None:
    assert codes(caption) == ["caption_without_trigger_word"]


def test_a_caption_longer_than_an_encoder_reads_at_once_is_named_with_its_tokens() -> None:
    # The trigger word is two tokens.
    assert codes("sks1" + " dog" * (MOST_AT_ONCE - 2)) == []
    assert codes("sks1" + " dog" * (MOST_AT_ONCE - 1)) == ["long_caption"]


@pytest.mark.parametrize("kind", [File, DatasetFile])
@pytest.mark.parametrize("letter", ["a", "\u732b"])
def test_a_caption_is_limited_in_bytes(kind: type[File | DatasetFile], letter: str) -> None:
    most = letter * (MAX_CAPTION_BYTES // len(letter.encode()))
    assert kind(file_id="file_0", caption=most).caption == most
    with pytest.raises(ValidationError, match=r"the caption has 800\d bytes as UTF-8; at most 8000 are allowed; shorten it"):
        kind(file_id="file_0", caption=most + letter)


def test_the_command_has_the_limit_of_the_server() -> None:
    assert captions.MAX_CAPTION_BYTES == MAX_CAPTION_BYTES


@pytest.mark.parametrize(
    ("steps", "batch_size", "code"),
    [(159, 1, "few_steps"), (160, 1, None), (800, 1, None), (801, 1, "many_steps"), (39, 4, "few_steps"), (201, 4, "many_steps")],
)
def test_steps_are_judged_by_the_views_of_each_image(steps: int, batch_size: int, code: str | None) -> None:
    files = [File(file_id=f"file_{number}") for number in range(4)]
    found = [warning.code for warning in lint_request(details(files, steps), batch_size)]
    assert found == ([code] if code else [])


def test_regularization_images_count_neither_as_images_nor_as_captions_of_the_subject() -> None:
    subjects = [File(file_id=f"file_{number}") for number in range(4)]
    others = [File(file_id=f"other_{number}", caption="a dog", regularization=True) for number in range(20)]

    assert lint_request(details(subjects + others), 1) == []
    others[3].caption = "a sks1 dog"
    [found] = lint_request(details(subjects + others), 1)
    assert (found.code, found.file_id) == ("regularization_with_trigger_word", "other_3")
