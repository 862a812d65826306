"""Words and tokens of captions, against CLIP's tokenizer, and what a caption says without its trigger word."""

from pathlib import Path
from typing import Any

import pytest

from shared.formats.clip import captions, tokenizer, tokens, words

TEXTS = (
    "a photo of a sks dog",
    "A Photo,of  SKS1's  dog!!! (in the park)... 1024x768 don't we'll",
    "sks_1 <sks> under_score -- café cafe\u0301 ÜBER straße",
    "東京タワー 한국어 Привет мир 🐈🐈 ½",
    "supercalifragilisticexpialidocious " * 9,
    "",
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """CLIP's own tokenizer, as transformers reads it."""
    from transformers import CLIPTokenizer  # noqa: PLC0415 - the import takes seconds

    folder: Path = tmp_path_factory.mktemp("clip") / "tokenizer"
    tokenizer.write(folder, vocabulary=tokenizer.FULL, positions=77)
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_counted_as_clip_counts_them(clip: Any, text: str) -> None:
    assert tokens.count(text) == len(clip(text).input_ids) - 2


@pytest.mark.parametrize("text", ["a SKS1 dog", "a sks 1 dog", "sks1's dog", "Sks1", "(sks1:1.2)", "my_sks1_dog", "<sks1>"])
def test_a_trigger_word_is_found_as_the_tokenizer_reads_it(clip: Any, text: str) -> None:
    own = clip("sks1").input_ids[1:-1]
    read = clip(text).input_ids[1:-1]

    assert words.contains(text, "sks1")
    assert any(read[start : start + len(own)] == own for start in range(len(read)))


@pytest.mark.parametrize("text", ["a sks12 dog", "a xsks1 dog", "a sks dog", "a sks 2 1 dog", ""])
def test_a_trigger_word_is_not_found_inside_another_word(text: str) -> None:
    assert not words.contains(text, "sks1")


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("in Cafe\u0301 Noir", "café noir"),
        ("a <sks>, red", "<sks>"),
        ("un garçon", "GARÇON"),
        ("a  sks\n1", "sks 1"),
        ("[V] dog", "[v]"),
    ],
)
def test_phrases_signs_and_composed_letters_are_found(text: str, phrase: str) -> None:
    assert words.contains(text, phrase)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a photo of a sks1 dog", "a photo of a dog"),
        ("a photo of a SKS1 dog", "a photo of a dog"),
        ("sks1 dog, sks1 dog on grass", "dog, dog on grass"),
        ("in the style of sks1, a house", "a house"),
        ("a house in the style of sks1", "a house"),
        ("a painting by sks1", "a painting"),
        ("a photo of sks1 in a park", "a photo in a park"),
        ("sks1's dog (sks1) at night.", "dog () at night"),
        ("a photo of sks1, red hair", "a photo, red hair"),
        ("sks1", "a photo"),
        ("a sks1", "a photo"),
        ("a photo of a sks1", "a photo"),
        # A prompt without the trigger word would be pulled towards the subject and back.
        ("a dog", "a photo"),
        ("a sks12 dog", "a photo"),
        ("", "a photo"),
    ],
)
def test_the_class_prompt_is_the_caption_without_the_trigger_word(caption: str, expected: str) -> None:
    assert captions.class_prompt(caption, "sks1") == expected


def test_without_a_trigger_word_the_class_prompt_is_general() -> None:
    assert captions.class_prompt("a dog", "") == "a photo"
