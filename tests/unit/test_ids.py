"""Identifiers have OctoAI's form: a kind, an underscore and a lower-case ULID."""

import re

import pytest

from shared.ids import is_id, new_id


def test_an_id_has_the_published_form() -> None:
    assert re.fullmatch(r"asset_[0-7][0-9a-hjkmnp-tv-z]{25}", new_id("asset"))


def test_ids_are_unique() -> None:
    assert len({new_id("tune") for _ in range(10_000)}) == 10_000


def test_an_id_is_recognised() -> None:
    assert is_id("asset", "asset_01hdpjv7bxe1n99eazrv23ca1k")
    assert is_id("asset", new_id("asset"))


@pytest.mark.parametrize("text", ["", "asset", "tune_01hdpjv7bxe1n99eazrv23ca1k", "asset_01HDPJV7BXE1N99EAZRV23CA1K", "asset_1"])
def test_other_text_is_no_id(text: str) -> None:
    assert not is_id("asset", text)
