"""An accepted tune always ends (promise 1), whatever is killed meanwhile."""

import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

import httpx
import pytest

from tests.support.stub_stack import LEASE_S, StubStack
from tests.support.tunes import start_tune
from tests.support.waiting import until
from tunesmith.client import Asset, Client, Tune, TunesmithApiError

T = TypeVar("T")
TERMINAL = {"succeeded", "failed", "cancelled"}
_STUCK = "SELECT count(*) FROM tunes WHERE ended_at IS NULL AND lease_expires_at < now() - make_interval(secs => $1)"


@pytest.mark.parametrize(
    ("tunes", "kills", "bound_s"),
    [
        pytest.param(12, 6, 300.0, id="short", marks=pytest.mark.timeout(900)),
        pytest.param(500, 120, 2400.0, id="long", marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
    ],
)
def test_every_tune_that_was_accepted_ends(
    stack: StubStack, client: Client, image: Asset, tunes: int, kills: int, bound_s: float
) -> None:
    seed = int(os.environ.get("TUNESMITH_FAULTS_SEED", random.SystemRandom().randrange(2**32)))
    print(f"TUNESMITH_FAULTS_SEED={seed}")
    drawn = random.Random(seed)
    names = sorted(name for name, process in stack.state.processes.items() if process.pid)
    accepted: list[Tune] = []
    for number in range(tunes):
        for _ in range(number * kills // tunes, (number + 1) * kills // tunes):
            stack.kill(drawn.choice(names))
        name = f"ends-{tunes}-{number}"
        accepted.append(until(lambda name=name: reached(lambda: accept(client, image, name)), f"{name} is accepted"))

    began = time.monotonic()
    ends: list[str] = []
    for tune in accepted:
        ended = until(lambda tune=tune: reached(lambda: end_of(client, tune)), f"{tune.name} ends", bound_s)
        ends.append(ended.status)
    print(f"the last of {tunes} ended {time.monotonic() - began:.0f} s after it was accepted, past {kills} kills")
    assert set(ends) == {"succeeded"}, "nothing was wrong with any of them"
    assert stack.scalar(_STUCK, 2 * LEASE_S) == 0


def reached(call: Callable[[], T]) -> T | None:
    """Call the stack; return None when a part of it is unavailable."""
    try:
        return call()
    except httpx.HTTPError:
        return None
    except TunesmithApiError as error:
        if error.status < httpx.codes.INTERNAL_SERVER_ERROR:
            raise
        return None


def accept(client: Client, image: Asset, name: str) -> Tune:
    """Start a tune, unless an earlier request whose answer was lost has started it."""
    found = client.tunes(name=name)
    return found[0] if found else start_tune(client, image, name)


def end_of(client: Client, tune: Tune) -> Tune | None:
    now = client.tune(tune.id)
    return now if now.status in TERMINAL else None
