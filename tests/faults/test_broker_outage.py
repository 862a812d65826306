"""A broker outage loses nothing (promise 6), and lost hints cost only latency (promise 8)."""

import pytest

from tests.support.stub_stack import StubStack
from tests.support.tunes import ended, start_tune
from tests.support.waiting import until
from tunesmith.client import Asset, Client

pytestmark = pytest.mark.timeout(900)
_WAITING = "SELECT (SELECT count(*) FROM outbox_tunes) + (SELECT count(*) FROM outbox_upload)"
MOST_LINES = 2
"""What a service may log of an outage of any length: a line for its relay or listener, and one for its consumers."""


def test_a_tune_runs_from_start_to_end_without_a_broker_and_its_events_follow(
    stack: StubStack, client: Client, image: Asset
) -> None:
    services = ("upload", "scheduler", "inference", "trainer", "inference-worker")
    before = {name: lines(stack, name) for name in services}
    with stack.without("kafka"):
        done = ended(client, start_tune(client, image, "without-a-broker"))
        assert done.status == "succeeded", done.status_details
        assert stack.scalar(_WAITING) > 0
        said = {name: lines(stack, name) - before[name] for name in services}

    assert until(lambda: stack.scalar(_WAITING) == 0 or None, "the outbox has drained")
    assert max(said.values()) <= MOST_LINES, said


def lines(stack: StubStack, name: str) -> int:
    """Count the lines that a service has logged of an unavailable broker."""
    log = (stack.paths.logs / f"{name}.log").read_text()
    return sum(any(said in line for said in ("relay.waiting", "consumer.waiting", "hints.waiting")) for line in log.splitlines())
