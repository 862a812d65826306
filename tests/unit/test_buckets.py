"""The sizes of training: no image is enlarged by more than is said, and large ones keep the resolution."""

import pytest

from shared.tunes.buckets import LONGEST_ASPECT, MAX_ENLARGEMENT, bucket


@pytest.mark.parametrize(("resolution_px", "divisor_px"), [(512, 64), (1024, 32), (64, 16)])
def test_no_image_of_a_sixteenth_of_the_resolution_is_enlarged_by_more_than_the_limit(
    resolution_px: int, divisor_px: int
) -> None:
    for width in range(divisor_px * 2, resolution_px * 2, 7):
        for height in (width, width * 3 // 4, width * 2 // 3, width * 2):
            made = bucket(width, height, resolution_px, divisor_px)
            assert made[0] % divisor_px == made[1] % divisor_px == 0
            if min(width, height) >= resolution_px / 16:
                assert max(made[0] / width, made[1] / height) <= MAX_ENLARGEMENT, (width, height, made)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((4000, 3000), (1184, 896)),
        ((3000, 4000), (896, 1184)),
        ((1024, 1024), (1024, 1024)),
        ((820, 820), (1024, 1024)),
        ((819, 819), (960, 960)),
        ((300, 300), (320, 320)),
        ((5000, 1000), (1440, 736)),
    ],
)
def test_the_bucket_of_an_sdxl_image(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert bucket(*size, 1024, 32) == expected


def test_a_bucket_has_about_the_pixels_of_the_resolution_and_a_bounded_aspect() -> None:
    for width in range(600, 4000, 77):
        made = bucket(width, 1500, 1024, 64)
        assert made[0] * made[1] == pytest.approx(1024**2, rel=0.1)
        assert max(made) / min(made) <= LONGEST_ASPECT * 1.1
