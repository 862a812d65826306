"""The operator's safety checker: loaded by name, called once an image, and never silently absent."""

import pytest
from PIL import Image

from shared.safety import Safety, SafetyVerdict
from shared.settings import ServiceSettings

NEEDED = {"database_url": "x", "kafka_bootstrap_servers": "x", "s3_endpoint": "x", "s3_access_key": "x", "s3_secret_key": "x"}


class Redness:
    """Scores an image by how red it is."""

    def check(self, image: Image.Image) -> float:
        return image.convert("RGB").resize((1, 1)).getpixel((0, 0))[0] / 255


class Undecided:
    def check(self, image: Image.Image) -> float:
        return float("nan")


class NoChecker:
    pass


def _settings(checker: str, threshold: float = 0.5) -> ServiceSettings:
    return ServiceSettings(**NEEDED, safety_checker=checker, safety_threshold=threshold)  # pyright: ignore[reportArgumentType]


def _image(red: int) -> Image.Image:
    return Image.new("RGB", (32, 32), (red, 0, 0))


def test_a_checker_is_loaded_by_its_name_and_a_score_is_compared_with_the_threshold() -> None:
    safety = Safety.from_settings(_settings(f"{__name__}:Redness", 0.8))

    assert safety is not None
    assert safety.judge(_image(255)) == SafetyVerdict(1.0, is_unsafe=True)
    assert safety.judge(_image(204)) == SafetyVerdict(0.8, is_unsafe=True)
    assert safety.judge(_image(0)) == SafetyVerdict(0.0, is_unsafe=False)


def test_without_the_setting_there_is_none() -> None:
    assert Safety.from_settings(_settings("")) is None


@pytest.mark.parametrize("name", ["nowhere_at_all:Checker", f"{__name__}:Missing", f"{__name__}:NoChecker", __name__])
def test_a_setting_that_names_no_checker_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="TUNESMITH_SAFETY_CHECKER"):
        Safety.from_settings(_settings(name))


def test_a_score_outside_of_0_to_1_is_an_error() -> None:
    safety = Safety.from_settings(_settings(f"{__name__}:Undecided"))

    assert safety is not None
    with pytest.raises(ValueError, match="a score from 0 to 1"):
        safety.judge(_image(0))
