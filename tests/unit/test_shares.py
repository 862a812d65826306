"""Slots are shared by accounts so that one is left for the next account."""

import asyncio
from uuid import UUID, uuid4

import pytest

from shared.errors import LimitError
from shared.shares import Shares, Turns

A, B, C = uuid4(), uuid4(), uuid4()


def _take_all(shares: Shares, *accounts: UUID) -> dict[UUID, int]:
    """Let the accounts take slots in turn for as long as one of them may."""
    while (account_id := shares.fairest(accounts)) is not None:
        shares.take(account_id)
    return {account_id: shares.held_by(account_id) for account_id in accounts}


@pytest.mark.parametrize(("slots", "expected"), [(16, 8), (10, 5), (2, 1), (1, 1)])
def test_one_account_gets_half_of_the_slots(slots: int, expected: int) -> None:
    assert _take_all(Shares(slots), A) == {A: expected}


def test_two_accounts_get_as_much_as_each_other_and_leave_a_slot() -> None:
    shares = Shares(16)

    assert _take_all(shares, A, B) == {A: 6, B: 5}
    assert shares.may_take(C)
    assert set(shares.full()) == {A, B}


async def test_a_slot_that_is_given_back_goes_to_the_account_that_holds_the_fewest() -> None:
    shares, order = Shares(4), list[str]()
    release = asyncio.Event()

    async def hold(account_id: UUID, name: str, ended: asyncio.Event) -> None:
        async with shares.slot(account_id, wait_s=5, message="full"):
            order.append(name)
            await ended.wait()

    first = asyncio.Event()
    holders = [asyncio.create_task(hold(A, f"a{number}", first if number == 0 else release)) for number in range(6)]
    await asyncio.sleep(0)
    assert order == ["a0", "a1"]
    holders += [asyncio.create_task(hold(B, f"b{number}", release)) for number in range(3)]
    await asyncio.sleep(0)
    assert order == ["a0", "a1", "b0"]
    first.set()
    await holders[0]
    release.set()
    await asyncio.gather(*holders)

    assert len(order) == 9
    assert shares.held == 0


async def test_a_wait_for_a_slot_ends_with_an_error_that_says_when_to_retry() -> None:
    shares = Shares(1)
    async with shares.slot(A, wait_s=1, message="held"):
        with pytest.raises(LimitError, match="full") as refused:
            async with shares.slot(B, wait_s=0.01, message="full"):
                pass

    assert refused.value.headers["Retry-After"] == "1"
    assert shares.held == 0
    assert shares.fairest([A, B]) == A


async def test_a_task_that_is_cancelled_while_it_waits_keeps_no_slot() -> None:
    shares = Shares(1)
    async with shares.slot(A, wait_s=1, message="full"):
        waits = [asyncio.create_task(_pass(shares, account_id)) for account_id in (A, B, B)]
        await asyncio.sleep(0)
        waits[1].cancel()
        await asyncio.gather(waits[1], return_exceptions=True)
    # The slot is granted to one of them here, before it runs.
    waits[0].cancel()
    await asyncio.gather(*waits, return_exceptions=True)

    assert shares.held == 0
    assert waits[2].exception() is None


async def _pass(shares: Shares, account_id: UUID) -> None:
    async with shares.slot(account_id, wait_s=5, message="full"):
        pass


async def test_an_account_has_one_turn_at_a_time_and_others_do_not_wait_for_it() -> None:
    turns = Turns()
    async with turns.turn(A, wait_s=1, message="busy"), turns.turn(B, wait_s=1, message="busy"):
        with pytest.raises(LimitError, match="busy"):
            async with turns.turn(A, wait_s=0.01, message="busy"):
                pass
    async with turns.turn(A, wait_s=0.01, message="busy"):
        pass
