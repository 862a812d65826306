"""What a training needs of a GPU, and how it is made to fit one."""

from dataclasses import replace

import pytest

from shared.engines import Engine
from shared.tunes.memory import GIB, PUBLISHED, Load, fitted, need, refusal, weights_of

SD15 = Load(engine=Engine.SD15, weights=PUBLISHED[Engine.SD15], rows=2, resolution_px=512, rank=16)
SDXL = Load(engine=Engine.SDXL, weights=PUBLISHED[Engine.SDXL], rows=2, resolution_px=1024, rank=16)
LOADS = pytest.mark.parametrize("load", [SD15, SDXL], ids=["sd15", "sdxl"])


@LOADS
def test_each_choice_that_needs_memory_counts(load: Load) -> None:
    usual = need(load).total
    for larger in (
        replace(load, rows=4),
        replace(load, resolution_px=load.resolution_px * 2),
        replace(load, rank=64),
        replace(load, trains_text=True),
    ):
        assert need(larger).total > usual, larger
    for smaller in (replace(load, checkpointing=True), replace(load, optimizer="adafactor"), replace(load, rows_at_once=1)):
        assert need(smaller).total < usual, smaller


@LOADS
def test_activations_grow_with_the_rows_and_with_the_pixels_of_each(load: Load) -> None:
    one = need(replace(load, rows=1)).activations
    assert need(replace(load, rows=6)).activations == pytest.approx(6 * one)
    assert need(replace(load, rows=1, resolution_px=2 * load.resolution_px)).activations == pytest.approx(4 * one)


@LOADS
def test_memory_is_saved_in_the_order_of_its_cost(load: Load) -> None:
    rows = replace(load, rows=8)
    whole, recomputed = need(rows).total, need(replace(rows, checkpointing=True)).total

    assert fitted(rows, whole / 0.9) == rows
    assert fitted(rows, recomputed / 0.9) == replace(rows, checkpointing=True)
    assert fitted(rows, need(replace(rows, checkpointing=True, rows_at_once=4)).total / 0.9) == replace(
        rows, checkpointing=True, rows_at_once=4
    )
    assert fitted(rows, 2 * GIB) is None


def test_the_defaults_fit_the_gpus_that_are_named_in_the_docs() -> None:
    assert fitted(SD15, 8 * GIB) is not None
    assert fitted(SDXL, 12 * GIB) is not None
    assert fitted(SDXL, 6 * GIB) is None


def test_a_refusal_has_the_numbers() -> None:
    text = refusal(replace(SDXL, rank=64), 6 * GIB)

    needed = need(replace(SDXL, rank=64, checkpointing=True, rows_at_once=1)).total / GIB
    for part in (f"{needed:.1f} GiB", "1024 px", "rank 64", "6.0 GiB", "lower the resolution"):
        assert part in text


def test_a_small_base_counts_by_its_file_and_a_full_size_one_as_published() -> None:
    small = weights_of(Engine.SD15, 64, 15_000_000, "fp16")
    assert small.total == pytest.approx(7_500_000, rel=0.01)
    assert weights_of(Engine.SD15, 64, 15_000_000, "fp32").total == pytest.approx(3_750_000, rel=0.01)
    assert weights_of(Engine.SDXL, 1024, 1, None) == PUBLISHED[Engine.SDXL]
    assert need(replace(SD15, weights=small, resolution_px=64)).total < 1.1 * GIB
