"""A Kafka client's start is not cut off, and its end is bounded."""

import asyncio

import pytest

from shared.messaging.clients import end_within, start_whole


async def test_the_end_of_a_discarded_client_is_bounded_and_its_errors_are_ignored() -> None:
    async def fails() -> None:
        raise ConnectionError

    async def is_cancelled() -> None:
        raise asyncio.CancelledError

    async def never_ends() -> None:
        await asyncio.Event().wait()

    for ending in (fails, is_cancelled, never_ends):
        await end_within(0.01, ending())


async def test_a_start_that_is_cancelled_ends_before_the_cancellation_is_raised() -> None:
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


async def test_the_error_of_a_start_is_raised() -> None:
    async def start() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await start_whole(start())
