"""A local stack that runs, whoever started it: how tests look at its processes, stop them and kill them."""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import psutil

from deploy.local import state
from deploy.local.paths import StackPaths
from deploy.local.ports import LOOPBACK
from deploy.local.state import ProcessState, StackState
from tunesmith.client import Client

T = TypeVar("T")
_BOUND_S = 300.0
"""Generous: what is bounded here in the product is bounded there; this only ends a test that would wait for ever."""


class RunningStack:
    """Harms and looks at one."""

    def __init__(self, paths: StackPaths) -> None:
        self.paths = paths

    @property
    def state(self) -> StackState:
        found = state.read(self.paths)
        assert found is not None
        return found

    def client(self) -> Client:
        return Client(self.state.url, (self.paths.secrets / "api_key").read_text())

    def process(self, name: str) -> psutil.Process:
        def running() -> psutil.Process | None:
            pid = self.state.processes[name].pid
            return psutil.Process(pid) if pid else None

        return until(running, f"{name} runs")

    def kill(self, name: str) -> ProcessState:
        """Kill a process of the stack, and return what was known of it before."""
        process = self.process(name)
        before = self.state.processes[name]
        process.kill()
        return before

    def until_back(self, name: str, before: ProcessState) -> None:
        def is_back() -> bool | None:
            now = self.state.processes[name]
            return True if now.ready and now.restarts > before.restarts and now.pid != before.pid else None

        until(is_back, f"{name} is back")

    @contextlib.contextmanager
    def away(self, name: str) -> Iterator[None]:
        """Kill a process and keep its port, so that it cannot come back before the block ends; then wait for it."""
        port = json.loads(self.paths.ports.read_text())[name]
        before = self.kill(name)
        with until(lambda: _listen(port), "its port is free") as listener:
            threading.Thread(target=_refuse_all, args=(listener,), daemon=True).start()
            try:
                yield
            finally:
                # Closing alone would not wake the thread that accepts.
                listener.shutdown(socket.SHUT_RDWR)
        self.until_back(name, before)

    @contextlib.contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """Stop a process with all that it started: it keeps what it holds, and does nothing until the block ends."""
        group = self.process(name).pid
        os.killpg(group, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(group, signal.SIGCONT)


def until(found: Callable[[], T | None], what: str, bound_s: float = _BOUND_S) -> T:
    """Poll until something is found, within a bound in seconds."""
    deadline = time.monotonic() + bound_s
    while (value := found()) is None:
        assert time.monotonic() < deadline, f"not within {bound_s} s: {what}"
        time.sleep(0.05)
    return value


def _listen(port: int) -> socket.socket | None:
    try:
        return socket.create_server((LOOPBACK, port))
    except OSError:
        return None


def _refuse_all(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            listener.accept()[0].close()
