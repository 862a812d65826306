"""An account may send a limited number of requests a minute to a replica, and is told when to retry."""

from uuid import uuid4

import pytest

from shared.errors import LimitError
from shared.http.rate import RequestRate


async def test_a_request_over_the_limit_is_refused_with_the_limit_and_a_time() -> None:
    rate, account = RequestRate(3), uuid4()
    for _ in range(3):
        await rate.count(account, None)

    with pytest.raises(LimitError, match=r"max_requests_per_minute: this account may send 3 requests a minute") as refused:
        await rate.count(account, None)

    assert 1 <= int(refused.value.headers["Retry-After"]) <= 60


async def test_accounts_are_counted_separately() -> None:
    rate = RequestRate(1)
    await rate.count(uuid4(), None)

    await rate.count(uuid4(), None)


async def test_an_accounts_own_limit_replaces_the_default() -> None:
    rate, account = RequestRate(1), uuid4()
    await rate.count(account, 2)
    await rate.count(account, 2)

    with pytest.raises(LimitError):
        await rate.count(account, 2)
    with pytest.raises(LimitError):
        await rate.count(uuid4(), 0)
