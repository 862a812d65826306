"""The parent's end of a training process."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence

from services.trainer.engine.config import Device
from services.trainer.errors import ChildDiedError
from services.trainer.messages import ChildReport, FromChild, Ready, Stop, ToChild, Train
from shared.telemetry import get_logger

log = get_logger(__name__)

CHILD_COMMAND = (sys.executable, "-m", "services.trainer.child_main")
_SECRETS = ("TUNESMITH_DATABASE_URL", "TUNESMITH_S3_ACCESS_KEY", "TUNESMITH_S3_SECRET_KEY")


class Child:
    """A training process: warm once `ready` returns, good for one job."""

    def __init__(self, process: asyncio.subprocess.Process, orders_fd: int, reports: asyncio.StreamReader) -> None:
        self._process = process
        self._orders_fd = orders_fd
        self._reports = reports
        self._output = asyncio.create_task(self._log_output(), name="trainer-child-output")
        self._waiting = asyncio.create_task(process.wait(), name="trainer-child-exit")

    @classmethod
    async def start(cls, command: Sequence[str], device: Device) -> "Child":
        """Start a process in a session of its own, so that Ctrl-C reaches this one alone.

        It gets no access to database and store: it only ever reads and writes files.
        """
        orders_read, orders_write = os.pipe()
        reports_read, reports_write = os.pipe()
        env = {name: value for name, value in os.environ.items() if name not in _SECRETS}
        # Threads that wait by spinning make training several times slower as soon as anything else wants a core.
        env |= {"TUNESMITH_DEVICE": device, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                str(orders_read),
                str(reports_write),
                str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(orders_read, reports_write),
                start_new_session=True,
                env=env,
            )
        finally:
            os.close(orders_read)
            os.close(reports_write)
        reports = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reports), os.fdopen(reports_read, "rb")
        )
        return cls(process, orders_write, reports)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def gone(self) -> asyncio.Task[int]:
        """Done once the process has ended; its result is the exit status."""
        return self._waiting

    async def ready(self) -> Ready:
        """Wait until it has imported everything. Raises ChildDiedError."""
        async for report in self.reports():
            if isinstance(report, Ready):
                return report
        raise await self.died()

    async def reports(self) -> AsyncIterator[ChildReport]:
        """Yield what the child says until it closes its pipe."""
        while line := await self._reports.readline():
            yield FromChild.validate_json(line)

    async def died(self) -> ChildDiedError:
        """Return the error that tells how the process ended, once its pipe is closed."""
        status = await self._waiting
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        return ChildDiedError(f"the training process ended with {how}; its log may say why")

    def train(self, job_file: str) -> None:
        """Give it its job."""
        self._say(Train(job_file=job_file))

    def stop(self) -> None:
        """Ask it to write a checkpoint after the step in hand and to end."""
        self._say(Stop())

    async def kill(self) -> None:
        """End it now, whatever it does, and wait until it is gone."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                # Its whole session: nothing that it started may outlive it.
                os.killpg(self._process.pid, signal.SIGKILL)
        await self._waiting
        if self._orders_fd >= 0:
            os.close(self._orders_fd)
            self._orders_fd = -1
        await self._output

    def _say(self, order: Train | Stop) -> None:
        with contextlib.suppress(BrokenPipeError):  # its end is noticed by who reads its reports
            os.write(self._orders_fd, ToChild.dump_json(order) + b"\n")

    async def _log_output(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - asked for as a pipe
        with contextlib.suppress(ValueError):  # a line longer than the reader's buffer
            async for line in self._process.stdout:
                if text := line.decode(errors="replace").rstrip():
                    log.info("trainer.child_said", pid=self.pid, line=text)
