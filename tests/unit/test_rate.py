"""An account may send so many requests a minute to a replica, and is told when to come back."""

from uuid import uuid4

import pytest

from shared.errors import LimitError
from shared.http.rate import RequestRate


async def test_one_request_too_many_is_refused_with_the_limit_and_a_time() -> None:
    rate, account = RequestRate(3), uuid4()
    for _ in range(3):
        await rate.count(account, None)

    with pytest.raises(LimitError, match=r"max_requests_per_minute: this account may send 3 requests a minute") as refused:
        await rate.count(account, None)

    assert 1 <= int(refused.value.headers["Retry-After"]) <= 60


async def test_each_account_is_counted_for_itself() -> None:
    rate = RequestRate(1)
    await rate.count(uuid4(), None)

    await rate.count(uuid4(), None)


async def test_an_account_with_a_limit_of_its_own_has_that_one() -> None:
    rate, account = RequestRate(1), uuid4()
    await rate.count(account, 2)
    await rate.count(account, 2)

    with pytest.raises(LimitError):
        await rate.count(account, 2)
    with pytest.raises(LimitError):
        await rate.count(uuid4(), 0)
