"""Keys that fail are limited by address; keys that were valid lately are looked up all the same."""

import pytest

from shared.errors import LimitError
from shared.http.rate import FailedKeys


async def test_an_address_whose_keys_failed_too_often_is_refused_until_later() -> None:
    failures = FailedKeys(3)
    for number in range(3):
        await failures.check("192.0.2.1", bytes([number]))
        await failures.failed("192.0.2.1", bytes([number]))

    with pytest.raises(LimitError, match="more than 3 keys from this address failed") as refused:
        await failures.check("192.0.2.1", b"4")

    assert refused.value.headers == {"Retry-After": "60"}
    await failures.check("192.0.2.2", b"4")


async def test_a_key_that_was_valid_lately_is_not_refused_with_its_address() -> None:
    failures = FailedKeys(1)
    failures.succeeded(b"valid")
    await failures.failed("192.0.2.1", b"wrong")

    await failures.check("192.0.2.1", b"valid")

    await failures.failed("192.0.2.1", b"valid")
    with pytest.raises(LimitError):
        await failures.check("192.0.2.1", b"valid")
