"""The prior of a tune that chooses none."""

import pytest

from shared.formats.clip.captions import names_a_style
from shared.tunes.options import Prior, default_prior


@pytest.mark.parametrize(
    "caption",
    [
        "a house in the style of sks1",
        "in the style of the SKS1, a dog",
        "a sks1 style house",
        "sks1-style",
        "a cat, painted by sks1",
    ],
)
def test_a_caption_may_name_the_trigger_word_as_a_style(caption: str) -> None:
    assert names_a_style(caption, "sks1")


@pytest.mark.parametrize(
    "caption", ["sks1", "a photo of a sks1 dog", "a dog in the style of van gogh", "a stylish sks1 dog", "sks1 stylist"]
)
def test_another_caption_does_not(caption: str) -> None:
    assert not names_a_style(caption, "sks1")


def test_a_style_has_no_prior_and_a_subject_has_one() -> None:
    styles = ["a house in the style of sks1", "sks1 style"]
    assert default_prior(styles, "sks1", own_class_images=False) is Prior.NONE
    assert default_prior([*styles, "a sks1 dog"], "sks1", own_class_images=False) is Prior.BASE_OUTPUT
    assert default_prior(styles, "sks1", own_class_images=True) is Prior.CLASS_IMAGES
