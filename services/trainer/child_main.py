"""The training process: waits warm for one job, trains it, and ends.

Started by its parent as `python -m services.trainer.child_main READ_FD WRITE_FD PARENT_PID`, the ends of two pipes first.
"""

import ctypes
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

from services.trainer.messages import ChildReport, Failed, FromChild, Ready, Stop, ToChild, Train
from shared.errors import TunesmithError

_PR_SET_PDEATHSIG = 1
_NICE_END = 0


class Parent:
    """The parent at the other end of the pipes; when it goes, this process goes."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._orders = os.fdopen(read_fd, "rb")
        self._reports = os.fdopen(write_fd, "wb", buffering=0)
        self._job = threading.Condition()
        self._job_file: str | None = None
        self.stop = threading.Event()
        threading.Thread(target=self._listen, name="parent", daemon=True).start()

    def _listen(self) -> None:
        for line in self._orders:
            order = ToChild.validate_json(line)
            if isinstance(order, Stop):
                self.stop.set()
            with self._job:
                if isinstance(order, Train):
                    self._job_file = order.job_file
                self._job.notify_all()
        # The pipe closed: the parent is gone, and nobody may publish what this process does. No clean-up can be trusted here,
        # since the main thread may be deep in a kernel.
        os._exit(_NICE_END)

    def report(self, message: ChildReport) -> None:
        """Tell the parent."""
        self._reports.write(FromChild.dump_json(message) + b"\n")

    def wait_for_job(self) -> str | None:
        """Return the job's file; None when asked to stop before there was one."""
        with self._job:
            self._job.wait_for(lambda: self._job_file is not None or self.stop.is_set())
        return self._job_file


def _die_with(parent_pid: int) -> None:
    """Have the kernel end this process when its parent's ends; a parent that is gone already ends it at once."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(_NICE_END)


def main() -> None:
    """Import, say `ready`, train one job."""
    _die_with(int(sys.argv[3]))
    # Ctrl-C and SIGTERM are the parent's to handle: it asks for a checkpoint first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = Parent(int(sys.argv[1]), int(sys.argv[2]))
    began = time.monotonic()
    # What peft and diffusers deprecate concerns their callers' code, not who reads a trainer's log.
    warnings.simplefilter("ignore")
    # Imported here, after the pipes are watched: it takes many seconds.
    from services.trainer.engine import recipe  # noqa: PLC0415
    from services.trainer.engine.base import pick_device  # noqa: PLC0415
    from services.trainer.engine.config import Job  # noqa: PLC0415

    device = os.environ.get("TUNESMITH_DEVICE", "auto")
    parent.report(Ready(device=str(pick_device(device)), seconds=time.monotonic() - began))  # pyright: ignore[reportArgumentType]
    file = parent.wait_for_job()
    if file is None:
        return
    try:
        job = Job.model_validate_json(Path(file).read_bytes())
        parent.report(recipe.train(job, parent.report, parent.stop.is_set))
    except TunesmithError as error:
        parent.report(Failed(code=error.code, message=error.message, retryable=error.retryable))
    except Exception as error:  # noqa: BLE001 - the parent must learn why, whatever it was
        sys.excepthook(type(error), error, error.__traceback__)
        # A full disk or a device that hiccups may be gone at the next attempt; wrong shapes and our own faults are not.
        passing = isinstance(error, OSError) or type(error).__name__ == "AcceleratorError"
        message = f"the trainer failed with {type(error).__name__}: {error}; its log has more"
        parent.report(Failed(code=TunesmithError.code, message=message, retryable=passing))


if __name__ == "__main__":
    main()
