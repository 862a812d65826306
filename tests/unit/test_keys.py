"""API keys are recognised without the database."""

import pytest

from shared.accounts import keys


def test_a_fresh_key_is_well_formed() -> None:
    assert keys.is_well_formed(keys.new_secret())


def test_each_key_is_another() -> None:
    assert len({keys.new_secret() for _ in range(1000)}) == 1000


@pytest.mark.parametrize("position", [0, 4, 20, 53])
def test_a_key_with_one_wrong_character_is_refused(position: int) -> None:
    secret = keys.new_secret()
    wrong = "x" if secret[position] != "x" else "y"

    assert not keys.is_well_formed(secret[:position] + wrong + secret[position + 1 :])


@pytest.mark.parametrize("text", ["", "tsk_", "Bearer", "tsk_ümläut", "a" * 54])
def test_other_text_is_refused(text: str) -> None:
    assert not keys.is_well_formed(text)


def test_the_hash_is_of_the_whole_key() -> None:
    secret = keys.new_secret()

    assert keys.sha256(secret) != keys.sha256(secret[:-1])
    assert len(keys.sha256(secret)) == 32
