"""The service's handle on its training process."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Self

from services.trainer.engine.config import Device
from services.trainer.errors import ChildDiedError
from services.trainer.messages import ChildMessage, FromChild, Order, Ready, Stop, ToChild, Train
from shared.telemetry import get_logger

log = get_logger(__name__)

CHILD_COMMAND = (sys.executable, "-m", "services.trainer.child_main")
_SECRETS = (
    "TUNESMITH_DATABASE_URL",
    "TUNESMITH_DATABASE_PASSWORD",
    "TUNESMITH_KAFKA_SASL_PASSWORD",
    "TUNESMITH_S3_ACCESS_KEY",
    "TUNESMITH_S3_SECRET_KEY",
    "TUNESMITH_SECRETS_DIR",
)


class ChildProcess:
    """A training process. It can take a job once `ready` returns, and trains one job only."""

    def __init__(self, process: asyncio.subprocess.Process, orders_fd: int, messages: asyncio.StreamReader) -> None:
        self._process = process
        self._orders_fd = orders_fd
        self._messages = messages
        self._output = asyncio.create_task(self._log_output(), name="trainer-child-output")
        self._exit = asyncio.create_task(process.wait(), name="trainer-child-exit")

    @classmethod
    async def start(cls, command: Sequence[str], device: Device) -> Self:
        """Start a process in a session of its own, so that Ctrl-C in a terminal reaches the service alone.

        It gets no credentials of database and store: it only reads and writes files.
        """
        orders_read, orders_write = os.pipe()
        messages_read, messages_write = os.pipe()
        env = {name: value for name, value in os.environ.items() if name not in _SECRETS}
        # Threads that spin while they wait make training several times slower as soon as another process wants a core.
        env |= {"TUNESMITH_DEVICE": device, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                str(orders_read),
                str(messages_write),
                str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(orders_read, messages_write),
                start_new_session=True,
                env=env,
            )
        finally:
            os.close(orders_read)
            os.close(messages_write)
        messages = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(messages), os.fdopen(messages_read, "rb")
        )
        return cls(process, orders_write, messages)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def exited(self) -> asyncio.Task[int]:
        """Done once the process has ended; its result is the exit status."""
        return self._exit

    async def ready(self) -> Ready:
        """Wait until the process has imported its libraries. Raises ChildDiedError."""
        async for message in self.messages():
            if isinstance(message, Ready):
                return message
        raise await self.death()

    async def messages(self) -> AsyncIterator[ChildMessage]:
        """Yield what the process sends until it closes its pipe."""
        while line := await self._messages.readline():
            yield FromChild.validate_json(line)

    async def death(self) -> ChildDiedError:
        """Wait until the process has ended, and return the error that says how."""
        status = await self._exit
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        return ChildDiedError(f"the training process ended with {how}; its log may say why")

    def train(self, job_file: str) -> None:
        """Order it to train a job."""
        self._send(Train(job_file=job_file))

    def stop(self) -> None:
        """Order it to finish the current step, write a checkpoint and end."""
        self._send(Stop())

    async def kill(self) -> None:
        """Kill the process and all that it started, and wait until it has ended."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        await self._exit
        if self._orders_fd >= 0:
            os.close(self._orders_fd)
            self._orders_fd = -1
        await self._output

    def _send(self, order: Order) -> None:
        # A process that has ended is noticed where its messages are read.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._orders_fd, ToChild.dump_json(order) + b"\n")

    async def _log_output(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - `start` asks for a pipe
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:
                # The line is longer than the reader's buffer, and is dropped. The pipe is still read: a full one would block
                # the process.
                continue
            if not line:
                return
            if text := line.decode(errors="replace").rstrip():
                log.info("trainer.child_output", pid=self.pid, line=text)
