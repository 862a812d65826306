"""Background tasks outlive their own errors and end with their process."""

import asyncio

import pytest
from structlog.testing import capture_logs

from shared.background import Background


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


async def test_the_end_of_the_context_cancels_every_task() -> None:
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


async def test_the_end_of_the_context_does_not_wait_for_a_task_that_will_not_end() -> None:
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


async def test_a_child_tasks_cancellation_that_leaks_does_not_end_a_task() -> None:
    runs = 0
    twice = asyncio.Event()

    async def leaks_a_childs_cancellation() -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            twice.set()
            await asyncio.Event().wait()
        child = asyncio.create_task(asyncio.Event().wait())
        child.cancel()
        await child

    async with Background() as background:
        background.run("sample", leaks_a_childs_cancellation)
        await asyncio.wait_for(twice.wait(), 10)


@pytest.mark.parametrize("periodic", [False, True])
async def test_a_cancellation_that_a_library_turned_into_an_error_is_an_end(periodic: bool) -> None:
    runs = 0

    async def turns_it_into_an_error() -> None:
        nonlocal runs
        runs += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            msg = "closed"
            raise ConnectionError(msg) from None

    async with Background(stop_timeout_s=5) as background:
        if periodic:
            background.every("sample", 0, turns_it_into_an_error)
        else:
            background.run("sample", turns_it_into_an_error)
        await asyncio.sleep(0)
        [task] = background._tasks.values()

    assert task.done()
    assert runs == 1


@pytest.mark.parametrize("periodic", [False, True])
async def test_an_outage_is_one_line_without_a_traceback(monkeypatch: pytest.MonkeyPatch, periodic: bool) -> None:
    monkeypatch.setattr("shared.background._MAX_BACKOFF_S", 0.01)
    ended = asyncio.Event()
    calls = 0

    async def fails_while_the_server_is_down() -> None:
        nonlocal calls
        calls += 1
        if calls <= 5:
            raise ConnectionRefusedError
        if calls == 6 and periodic:
            return
        ended.set()
        if calls == 7:
            raise ConnectionResetError

    with capture_logs() as logs:
        async with Background() as background:
            if periodic:
                background.every("sample", 0, fails_while_the_server_is_down)
            else:
                background.run("sample", fails_while_the_server_is_down)
            await asyncio.wait_for(ended.wait(), 10)
            await asyncio.sleep(0)

    # The success between the two outages makes the second one a new one.
    wanted = ["ConnectionRefusedError()", "ConnectionResetError()"] if periodic else ["ConnectionRefusedError()"]
    assert [(line["event"], line["error"]) for line in logs] == [("background.waiting", error) for error in wanted]
    assert not any("exc_info" in line for line in logs)


async def test_any_other_error_of_a_task_has_its_traceback() -> None:
    again = asyncio.Event()

    async def fails_once() -> None:
        if not again.is_set():
            again.set()
            raise RuntimeError

    with capture_logs() as logs:
        async with Background() as background:
            background.run("sample", fails_once)
            await asyncio.wait_for(again.wait(), 5)
            await asyncio.sleep(0)

    assert [(line["event"], line["exc_info"]) for line in logs] == [("background.crashed", True)]
