"""Reads uploaded files in a child process, so that none of their bytes are parsed by a service itself.

The child (`shared.formats.sandbox_child`) has bounded memory, processor time and output, no network, none of the service's
environment and, where the system allows it, another user and no file but those that it is handed open. A file that exhausts
it, or breaks it, is refused like any other bad file.
"""

import array
import asyncio
import contextlib
import errno
import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, Self, TypeVar

from pydantic import BaseModel, TypeAdapter

from shared.errors import InvalidError
from shared.formats import strict_json
from shared.formats.confinement import Limits

M = TypeVar("M", bound=BaseModel)
_MAX_ANSWER_BYTES = 1 << 20
_START_S = 60.0
"""For the child's start: its imports take half a second of processor time, longer on a busy machine."""


class SandboxError(Exception):
    """A reader has a bug, or what it imports is missing. No file is to blame, and a retry does not help."""


@dataclass(frozen=True)
class Reader(Generic[M]):
    """A function that reads an open file (and writes an open target), and what it returns.

    The function must be importable by its name. `imports` are modules that it needs later than its own module does: the
    confined child cannot open them any more.
    """

    function: Callable[..., M]
    result: TypeAdapter[M]
    imports: Sequence[str] = ()
    limits: Limits = field(default_factory=Limits)


class Sandbox(Generic[M]):
    """A child that reads files one after the other. One that breaks it is refused, and the next file gets a new child."""

    def __init__(self, reader: Reader[M]) -> None:
        self._reader = reader
        self._process: asyncio.subprocess.Process | None = None
        self._channel: socket.socket | None = None

    async def __aenter__(self) -> Self:
        """Return the sandbox; its child starts with the first file."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the child."""
        await self.end()

    @property
    def process(self) -> asyncio.subprocess.Process | None:
        """The child, while there is one."""
        return self._process

    async def read(self, what: str, source: Path, *arguments: Any, target: Path | None = None) -> M:
        """Return what the reader says of `source`, which error texts call `what`.

        Raises InvalidError for a bad file and for one that exhausts or breaks the child, OSError when the system does not let
        the file be read or written or the child be started, and SandboxError for a fault that is not the file's.
        """
        with contextlib.ExitStack() as stack:
            files: list[IO[bytes]] = [stack.enter_context(source.open("rb"))]
            if target is not None:
                files.append(stack.enter_context(target.open("wb")))
            channel = self._channel or await self._start()
            answer: dict[str, Any] = {}
            try:
                # Files and request fit in the socket's buffer, so this does not wait.
                _send(channel, json.dumps(arguments).encode() + b"\n", [file.fileno() for file in files])
                async with asyncio.timeout(self._reader.limits.wall_s):
                    answer = await _hear(channel)
            except TimeoutError:
                msg = f"{what} took longer than {self._reader.limits.wall_s:g} s to read; send a smaller or simpler file"
                raise InvalidError(msg) from None
            except ConnectionError:
                pass
            finally:
                # Also when cancelled: an answer that nobody waited for must not be taken for that to the next file.
                if not answer:
                    await self.end()
        return self._result(what, answer)

    def _result(self, what: str, answer: dict[str, Any]) -> M:
        if "read" in answer:
            return self._reader.result.validate_python(answer["read"])
        if "refused" in answer:
            raise InvalidError(answer["refused"])
        if "os_error" in answer:
            raise OSError(*answer["os_error"])
        if "failed" in answer:
            raise SandboxError(answer["failed"])
        limits = self._reader.limits
        msg = (
            f"{what} could not be read within {limits.memory_bytes >> 20} MiB of memory and {limits.cpu_s} s of processor time; "
            "send a smaller or simpler file"
        )
        raise InvalidError(msg)

    async def end(self) -> None:
        """End the child, if there is one."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._process = None

    async def _start(self) -> socket.socket:
        await self.end()
        mine, theirs = socket.socketpair()
        mine.setblocking(False)
        function = self._reader.function
        with theirs:
            self._channel = mine
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-S", "-B", "-m", "shared.formats.sandbox_child", str(theirs.fileno())),
                json.dumps(asdict(self._reader.limits)),
                f"{function.__module__}:{function.__qualname__}",
                " ".join(self._reader.imports),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                # Not the service's environment, which holds its secrets.
                env={"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
                cwd="/",
                # Ctrl-C in a terminal goes to the service, which ends its children itself.
                start_new_session=True,
            )
        answer: dict[str, Any] = {}
        try:
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(_START_S):
                    answer = await _hear(mine)
        finally:
            if "ready" not in answer:
                await self.end()
        if "failed" in answer:
            msg = f"the reader's process cannot start: {answer['failed']}"
            raise SandboxError(msg)
        if "ready" not in answer:
            # As when the machine is short of memory: a retry may help.
            raise OSError(errno.EAGAIN, "the reader's process did not start")
        return mine


async def read(reader: Reader[M], what: str, source: Path, *arguments: Any, target: Path | None = None) -> M:
    """Read one file in a child of its own; see `Sandbox.read`."""
    async with Sandbox(reader) as sandbox:
        return await sandbox.read(what, source, *arguments, target=target)


def _send(channel: socket.socket, request: bytes, files: list[int]) -> None:
    channel.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))])


async def _hear(channel: socket.socket) -> dict[str, Any]:
    """Return the child's next answer; an empty one when it ended."""
    text = b""
    while not text.endswith(b"\n"):
        chunk = await asyncio.get_running_loop().sock_recv(channel, 1 << 16)
        text += chunk
        if not chunk or len(text) > _MAX_ANSWER_BYTES:
            return {}
    # The child may have been taken over by the file that it reads.
    return strict_json.load_object(text, "the reader's answer")
