"""A local stack that runs: how tests start it, look at its processes, stop them and kill them."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping

import psutil

from deploy.local import state
from deploy.local.paths import PROJECT, StackPaths
from deploy.local.ports import LOOPBACK
from deploy.local.state import ProcessState, StackState
from tests.support.waiting import until
from tunesmith.client import Client

_START_S = 300.0

_supervisors: list[subprocess.Popen[bytes]] = []
"""Kept for as long as this process lives: a Popen that is collected while its process runs warns of it."""


def start_supervisor(
    paths: StackPaths,
    port: int,
    *options: str,
    module: str = "deploy.local.supervise",
    env: Mapping[str, str] | None = None,
    bound_s: float = _START_S,
) -> subprocess.Popen[bytes]:
    """Start a stack by its supervisor's own command, and return the supervisor once all of the stack is ready."""
    command = [sys.executable, "-m", module, str(paths.data_dir), str(port), *options, "--quiet"]
    # Ctrl-C reaches a session of its own only through the tests, which still need the stack while they end.
    supervisor = subprocess.Popen(command, cwd=PROJECT, env=os.environ | (env or {}), start_new_session=True)
    _supervisors.append(supervisor)

    def is_ready() -> bool | None:
        log = paths.logs / "supervisor.log"
        assert supervisor.poll() is None, log.read_text() if log.exists() else "the supervisor wrote no log"
        found = state.read(paths)
        return True if found and found.ready and found.supervisor == supervisor.pid else None

    until(is_ready, f"the stack on {paths.data_dir} is ready", bound_s)
    return supervisor


class RunningStack:
    """Looks at a stack and disturbs it."""

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
        """Kill a process of the stack, and return its state before that."""
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
    def without(self, name: str) -> Iterator[None]:
        """Kill a process and hold its port, so that it cannot start again before the block ends; then wait until it is back."""
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
        """Suspend a process and its children until the block ends: they keep their connections, and do nothing."""
        group = self.process(name).pid
        os.killpg(group, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(group, signal.SIGCONT)


def _listen(port: int) -> socket.socket | None:
    try:
        return socket.create_server((LOOPBACK, port))
    except OSError:
        return None


def _refuse_all(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            listener.accept()[0].close()
