"""Background tasks outlive their own errors and end with their process."""

import asyncio

import pytest

from shared.background import Background, end_within, start_whole


async def test_a_task_that_raises_is_started_again() -> None:
    again = asyncio.Event()
    runs = 0

    async def fails_once() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ConnectionError
        again.set()

    async with Background() as background:
        background.run("fails once", fails_once)
        await asyncio.wait_for(again.wait(), 5)
    assert runs == 2


async def test_a_periodic_task_goes_on_after_an_error() -> None:
    twice = asyncio.Event()
    calls = 0

    async def fails_at_first() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ConnectionError
        twice.set()

    async with Background() as background:
        background.every("periodic", 0.01, fails_at_first)
        await asyncio.wait_for(twice.wait(), 5)


async def test_leaving_cancels_every_task() -> None:
    cancelled = asyncio.Event()

    async def runs_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with Background() as background:
        background.run("for ever", runs_for_ever)
        await asyncio.sleep(0)
    assert cancelled.is_set()


async def test_leaving_does_not_wait_for_a_task_that_will_not_end() -> None:
    release = asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await release.wait()

    async with Background(stop_timeout_s=0.05) as background:
        background.run("stubborn", stubborn)
        await asyncio.sleep(0)
    release.set()


async def test_a_cancellation_that_nobody_asked_for_is_no_end() -> None:
    runs = 0
    twice = asyncio.Event()

    async def lets_out_a_childs_cancellation() -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            twice.set()
            await asyncio.Event().wait()
        child = asyncio.create_task(asyncio.Event().wait())
        child.cancel()
        await child

    async with Background() as background:
        background.run("sample", lets_out_a_childs_cancellation)
        await asyncio.wait_for(twice.wait(), 10)


async def test_how_something_ends_that_is_given_up_does_not_matter() -> None:
    async def fails() -> None:
        raise ConnectionError

    async def is_cancelled() -> None:
        raise asyncio.CancelledError

    async def never_ends() -> None:
        await asyncio.Event().wait()

    for ending in (fails, is_cancelled, never_ends):
        await end_within(0.01, ending())


async def test_a_start_that_is_cancelled_ends_first() -> None:
    begun, may_go_on, steps = asyncio.Event(), asyncio.Event(), []

    async def start() -> None:
        begun.set()
        await may_go_on.wait()
        steps.append("started")

    async def connect() -> None:
        try:
            await start_whole(start())
        finally:
            steps.append("left")

    connecting = asyncio.create_task(connect())
    await begun.wait()
    connecting.cancel()
    asyncio.get_running_loop().call_soon(may_go_on.set)
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert steps == ["started", "left"]


async def test_a_start_that_fails_says_why() -> None:
    async def start() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await start_whole(start())
