"""Runs the processes of a stack: starts them in order, restarts those that end, merges their logs, and stops them all.

It is our own because no maintained process manager does all that a stack on a laptop needs: jobs before services, readiness,
one merged log, and no orphans however the manager is killed. The kernel kills each process when the supervisor dies
(`PR_SET_PDEATHSIG`, set in the child). That signal follows the thread that forked the child, so only the main thread forks. Each
process also inherits the stack's lock file, so the lock is free only when all of them have ended.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from deploy.local.logs import LogSink
from deploy.local.ports import is_free
from deploy.local.process import Process

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_FIRST_BACKOFF_S = 0.2
_MAX_BACKOFF_S = 5.0
_STEADY_S = 30.0
_CHECK_EVERY_S = 0.1
_JOB_ATTEMPTS = 3
_PORT_TIMEOUT_S = 20.0
_LINE_BYTES = 64 * 2**10
_DRAIN_S = 0.5
"""Seconds that the output is read after the process ended. A process that it started may hold the pipe open for longer."""


class StartError(Exception):
    """A part of the stack did not become ready. The message names it and has its last line of output."""


@dataclass
class Status:
    """The status of a process."""

    pid: int | None = None
    restarts: int = 0
    ready: bool = False
    last_line: str = ""


@dataclass
class Supervisor:
    """Runs the processes of one stack. It calls `changed` after each change of a status."""

    processes: Sequence[Process]
    sink: LogSink
    lock_fd: int
    changed: Callable[[], None]
    statuses: dict[str, Status] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Prepare a status and an event for every process."""
        self.statuses = {process.name: Status() for process in self.processes}
        self._up = {process.name: asyncio.Event() for process in self.processes}
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = False
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, timeout_s: float) -> None:
        """Start every process and return when all are ready. Raises StartError when a job fails or the time is over."""
        self._tasks = [asyncio.create_task(self._keep_running(process), name=process.name) for process in self.processes]
        ready = asyncio.gather(*(event.wait() for event in self._up.values()))
        done, _ = await asyncio.wait({ready, self._failure}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if ready in done:
            return
        ready.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ready
        if self._failure in done:
            self._failure.result()
        late = [f"{name} ({self.statuses[name].last_line or 'no output'})" for name, up in self._up.items() if not up.is_set()]
        msg = f"not ready after {timeout_s:.0f} s: {', '.join(late)}"
        raise StartError(msg)

    async def stop(self) -> None:
        """Stop every process. A process stops before those that it needs."""
        self._stopping = True
        waves = _waves(self.processes)
        for wave in reversed(waves):
            await asyncio.gather(*(self._stop(process) for process in wave))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def kill(self) -> None:
        """Kill every process at once."""
        self._stopping = True
        for running in self._running.values():
            _signal_group(running.pid, signal.SIGKILL)

    async def _keep_running(self, process: Process) -> None:
        """Run the process, and restart it when it ends, after a pause that grows while it does not stay up."""
        for need in process.needs:
            await self._up[need].wait()
        backoff_s, attempts = _FIRST_BACKOFF_S, 0
        while not self._stopping:
            began = time.monotonic()
            code, error = await self._run_once(process)
            if self._stopping or (process.once and code == 0):
                return
            attempts += 1
            status = self.statuses[process.name]
            reason = error or _reason(code, status.last_line)
            if process.once and attempts >= _JOB_ATTEMPTS:
                if not self._failure.done():
                    self._failure.set_exception(StartError(f"{process.name} {reason}"))
                return
            if time.monotonic() - began > _STEADY_S:
                backoff_s = _FIRST_BACKOFF_S
            self.sink.write("supervisor", f"{process.name} {reason}; restarting it in {backoff_s:.1f} s")
            await asyncio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, _MAX_BACKOFF_S)
            status.restarts += 1

    async def _run_once(self, process: Process) -> tuple[int | None, str]:
        """Run the process to its end. Return its exit code, or None and why it could not be started."""
        # With a pipe of asyncio's, wait() returns only after every process that holds the pipe has ended. This one is our own.
        read, write = os.pipe()
        try:
            await _wait_for_ports(process.ports)
            if process.before:
                await asyncio.to_thread(process.before)
            if self._stopping:
                os.close(read)
                return None, "not started: the stack is stopping"
            running = await asyncio.create_subprocess_exec(
                *process.argv,
                env=os.environ | process.env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write,
                stderr=write,
                start_new_session=True,
                pass_fds=[self.lock_fd],
                preexec_fn=_die_with_parent(os.getpid()),
            )
        except (OSError, RuntimeError) as error:
            os.close(read)
            return None, f"cannot be started: {error}"
        finally:
            os.close(write)
        self._running[process.name] = running
        status = self.statuses[process.name]
        status.pid = running.pid
        self.changed()
        watch = asyncio.create_task(self._watch(process))
        copy = asyncio.create_task(self._copy_output(process.name, read))
        code = await running.wait()
        watch.cancel()
        # Processes that it left behind in its session would hold its ports.
        _signal_group(running.pid, signal.SIGKILL)
        await asyncio.wait({copy}, timeout=_DRAIN_S)
        copy.cancel()
        del self._running[process.name]
        status.pid, status.ready = None, process.once and code == 0
        if status.ready:
            self._up[process.name].set()
        self.changed()
        return code, ""

    async def _copy_output(self, name: str, pipe: int) -> None:
        """Write each line to the log. A line longer than the buffer is cut into pieces."""
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb", 0)
        )
        rest = b""
        try:
            while chunk := await reader.read(_LINE_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > _LINE_BYTES:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    self._log(name, line)
        finally:
            if rest:
                self._log(name, rest)
            transport.close()

    def _log(self, name: str, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        self.statuses[name].last_line = text or self.statuses[name].last_line
        self.sink.write(name, text)

    async def _watch(self, process: Process) -> None:
        """Mark the process as ready when its check succeeds."""
        if process.once:
            return
        while process.ready and not await process.ready():
            await asyncio.sleep(_CHECK_EVERY_S)
        self.statuses[process.name].ready = True
        self._up[process.name].set()
        self.changed()

    async def _stop(self, process: Process) -> None:
        running = self._running.get(process.name)
        if running is None:
            return
        with contextlib.suppress(ProcessLookupError):
            running.send_signal(process.stop_signal)
        try:
            await asyncio.wait_for(running.wait(), process.grace_s)
        except TimeoutError:
            self.sink.write("supervisor", f"{process.name} did not stop within {process.grace_s:.0f} s; killing it")
        _signal_group(running.pid, signal.SIGKILL)


def _waves(processes: Sequence[Process]) -> list[list[Process]]:
    """Group the processes into waves. Each is in a later wave than all that it needs."""
    depth: dict[str, int] = {}
    for process in processes:
        depth[process.name] = process.wave if process.wave is not None else 1 + max((depth[n] for n in process.needs), default=-1)
    return [[p for p in processes if depth[p.name] == level] for level in range(max(depth.values(), default=-1) + 1)]


def _reason(code: int | None, last_line: str) -> str:
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"exited with {code}: {last_line or 'no output'}"


async def _wait_for_ports(ports: Sequence[int]) -> None:
    """Wait until the ports are free. Raises RuntimeError if one stays taken."""
    deadline = time.monotonic() + _PORT_TIMEOUT_S
    while taken := [port for port in ports if not is_free(port)]:
        if time.monotonic() > deadline:
            msg = f"port {taken[0]} is used by another program"
            raise RuntimeError(msg)
        await asyncio.sleep(_CHECK_EVERY_S)


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _die_with_parent(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # If the parent died before the line above, no signal will come.
        if os.getppid() != parent:
            os._exit(1)

    return prepare
