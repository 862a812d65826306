"""`tunesmith up`, `down` and `env`: start and stop a local stack, and point a client at it."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from deploy.local import state
from deploy.local.commands.options import DataDir, fail, stack_paths
from deploy.local.paths import StackPaths
from deploy.local.ports import DEFAULT_PORT, choose, is_free
from deploy.local.sign_in import console_line
from deploy.local.supervise import StartError, supervise

_START_TIMEOUT_S = 240
_STOP_TIMEOUT_S = 60
_KILL_TIMEOUT_S = 10


def up(
    detach: Annotated[bool, typer.Option("--detach", help="Return when the stack is ready, and leave it running.")] = False,
    data_dir: DataDir = None,
    port: Annotated[
        int | None,
        typer.Option(
            help=f"Port of the console and the API. Default: the one used last, or {DEFAULT_PORT}, or another if it is taken.",
        ),
    ] = None,
) -> None:
    """Start the local stack.

    It runs in the foreground, prints the logs of all its processes, and stops on Ctrl-C. With --detach it runs in the
    background until `tunesmith down`.
    """
    paths = stack_paths(data_dir)
    if running := _running(paths):
        print(f"already running at {running.url} (data in {paths.data_dir})")
        if not detach:
            raise typer.Exit(1)
        _wait_until_ready(paths, running.supervisor)
        return
    if port is not None and not is_free(port):
        fail(f"--port: {port} is used by another program: choose another port, for example --port {port + 1}")
    paths.create()
    port = port or choose(paths.ports)
    if not detach:
        try:
            code = asyncio.run(supervise(paths, port, only_external=False, terminal=True))
        except StartError as error:
            fail(str(error))
        raise typer.Exit(code)
    with (paths.logs / "supervisor.out").open("ab") as out:
        command = [sys.executable, "-m", "deploy.local.supervise", str(paths.data_dir), str(port), "--quiet"]
        started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    _wait_until_ready(paths, started.pid)
    url = f"http://127.0.0.1:{port}"
    print(f"ready at {url} (data in {paths.data_dir}, logs in {paths.logs})\n{console_line(paths, url)}")


def down(data_dir: DataDir = None) -> None:
    """Stop every process of the local stack. Its data stays."""
    paths = stack_paths(data_dir)
    if not state.is_locked(paths.lock):
        print(f"no stack is running on {paths.data_dir}")
        return
    running = state.read(paths)
    if running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.supervisor, signal.SIGTERM)
    if not _wait_for_lock(paths, _STOP_TIMEOUT_S):
        _kill(paths)
    print("stopped")


def env(data_dir: DataDir = None) -> None:
    """Print the shell commands that point any client at the running local stack.

    Use it as: eval "$(tunesmith env)"
    """
    paths = stack_paths(data_dir)
    running = state.read(paths)
    if running is None:
        fail(f"no stack is running on {paths.data_dir}: start it with `tunesmith up`")
    if not paths.api_key.exists():
        fail(f"the stack at {running.url} has no API key yet: wait until its first start is done")
    print(f"export TUNESMITH_URL={running.url} OCTOAI_TOKEN={paths.api_key.read_text()}")


def _wait_for_lock(paths: StackPaths, timeout_s: float) -> bool:
    """Wait until no process of the stack lives. Return whether that happened in time."""
    deadline = time.monotonic() + timeout_s
    while state.is_locked(paths.lock):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _kill(paths: StackPaths) -> None:
    """Kill the supervisor and every process of the stack. Exits with 1 when some of them survive."""
    if running := state.read(paths):
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.supervisor, signal.SIGKILL)
        for process in running.processes.values():
            if process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    if not _wait_for_lock(paths, _KILL_TIMEOUT_S):
        fail(f"some processes of the stack on {paths.data_dir} cannot be stopped: find them with `fuser {paths.lock}`")


def _running(paths: StackPaths) -> state.StackState | None:
    """Return the stack that runs here. Waits for the processes of a killed supervisor, which end by themselves."""
    deadline = time.monotonic() + _KILL_TIMEOUT_S
    while (locked := state.is_locked(paths.lock)) and time.monotonic() < deadline:
        found = state.load(paths)
        if found and _is_alive(found.supervisor):
            return found
        time.sleep(0.1)
    if locked:
        _kill(paths)
    return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A killed supervisor whose parent has not waited for it is a zombie, and a zombie accepts signals.
    with contextlib.suppress(OSError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return True


def _wait_until_ready(paths: StackPaths, supervisor: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        found = state.load(paths)
        if found and found.supervisor == supervisor:
            if found.ready:
                return
            if found.error:
                fail(f"the stack did not start: {found.error}\nread the logs in {paths.logs}, or run `tunesmith doctor`")
        if not _is_alive(supervisor):
            fail(f"the stack did not start, because its supervisor ended: read {paths.logs}/supervisor.out")
        time.sleep(0.1)
    fail(f"the stack is not ready after {_START_TIMEOUT_S} s: run `tunesmith doctor`, or read the logs in {paths.logs}")
