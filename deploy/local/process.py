"""What the supervisor knows about a process, and readiness checks for processes."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from deploy.local.ports import LOOPBACK

Ready = Callable[[], Awaitable[bool]]


@dataclass(frozen=True)
class Process:
    """A long-running process of the stack, or, with `once`, a job that must succeed before other processes start."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    ready: Ready | None = None
    ports: tuple[int, ...] = ()
    """Ports that it listens on. They must be free before it is started."""
    needs: tuple[str, ...] = ()
    """Names of the processes that must be ready, or of jobs that must be done, before this one starts."""
    wave: int | None = None
    """The wave that it stops in; higher waves stop earlier. None: one wave above the highest of its needs."""
    once: bool = False
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: float = 25.0
    """Seconds that it may take to stop before it is killed."""
    before: Callable[[], None] | None = None
    """Called in a thread before each start, also before restarts."""


def port_open(port: int) -> Ready:
    """Return a check that a program listens on a loopback port."""

    async def check() -> bool:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(LOOPBACK, port), 1)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    return check


def http_ok(port: int, path: str) -> Ready:
    """Return a check that a loopback port answers 200 for a path."""

    async def check() -> bool:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(LOOPBACK, port), 1)
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {LOOPBACK}\r\n\r\n".encode())
            line = await asyncio.wait_for(reader.readline(), 5)
            writer.close()
        except (OSError, TimeoutError):
            return False
        return b" 200 " in line

    return check
