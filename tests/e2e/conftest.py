"""A whole local stack of the session's own, started and ended by the commands that a person types."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import state
from deploy.local.paths import StackPaths
from deploy.local.ports import is_free
from tunesmith.client import Client

COMMAND = str(Path(sys.executable).parent / "tunesmith")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackPaths]:
    """The folder of a running stack."""
    paths = StackPaths(tmp_path_factory.mktemp("stack"))
    port = next(port for port in range(18200, 18300) if is_free(port))
    subprocess.run([COMMAND, "up", "--detach", "--data-dir", str(paths.data_dir), "--port", str(port)], check=True, timeout=300)
    try:
        yield paths
    finally:
        subprocess.run([COMMAND, "down", "--data-dir", str(paths.data_dir)], check=True, timeout=180)


@pytest.fixture
def client(stack: StackPaths) -> Iterator[Client]:
    """A client with the stack's own key."""
    running = state.read(stack)
    assert running is not None
    with Client(running.url, (stack.secrets / "api_key").read_text()) as client:
        yield client
