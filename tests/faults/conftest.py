"""A stack of its own for this folder, whose processes the tests kill."""

from collections.abc import Iterator

import pytest

from tests.support.shared_run import SharedRun
from tests.support.stub_stack import StubStack
from tunesmith.client import Asset, Client


@pytest.fixture(scope="session")
def stack(shared_run: SharedRun) -> Iterator[StubStack]:
    """A running stack; each test leaves it running."""
    stack = StubStack(shared_run.stack_folder("faults"))
    try:
        with shared_run.locked("start"):
            stack.start()
        yield stack
    finally:
        stack.end()


@pytest.fixture
def client(stack: StubStack) -> Iterator[Client]:
    """A client with the stack's own key. Tunes that a failed test left behind are cancelled, so that the next test need not wait."""
    with stack.client() as client:
        yield client
        for tune in client.tunes():
            if not tune.has_ended:
                client.cancel_tune(tune.id)


@pytest.fixture(scope="session")
def image(stack: StubStack) -> Asset:
    """An image in the library, to be trained on."""
    from tunesmith.demo import SAMPLES  # noqa: PLC0415

    with stack.client() as client:
        return client.wait_for_asset(client.upload(SAMPLES / "star-1.png", name="image"))
