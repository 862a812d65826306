"""A stack of the session's own whose processes the tests of this folder may kill."""

from collections.abc import Iterator

import pytest

from tests.support.stub_stack import StubStack
from tunesmith.client import Asset, Client


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StubStack]:
    """A running stack; each test leaves it running."""
    stack = StubStack(tmp_path_factory.mktemp("faults"))
    try:
        stack.start()
        yield stack
    finally:
        stack.end()


@pytest.fixture
def client(stack: StubStack) -> Iterator[Client]:
    """A client with the stack's own key; what a failed test has left behind does not hold up the next one."""
    with stack.client() as client:
        yield client
        for tune in client.tunes():
            if not tune.has_ended:
                client.cancel_tune(tune.id)


@pytest.fixture(scope="session")
def picture(stack: StubStack) -> Asset:
    """A picture in the library, to be trained on."""
    from tunesmith.demo import SAMPLES  # noqa: PLC0415

    with stack.client() as client:
        return client.wait_for_asset(client.upload(SAMPLES / "star-1.png", name="picture"))
