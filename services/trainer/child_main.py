"""The training process: imports its libraries, waits for one job, trains it, and ends.

Its parent starts it as `python -m services.trainer.child_main READ_FD WRITE_FD PARENT_PID`; the descriptors are its ends of two
pipes.
"""

import ctypes
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

from services.trainer.messages import ChildMessage, Failed, FromChild, Ready, Stop, ToChild, Train
from shared.errors import TunesmithError, public_reason

_PR_SET_PDEATHSIG = 1
_EXIT_STATUS = 0


class Pipes:
    """This process's ends of the two pipes to its parent. A thread reads the orders, also while a step runs."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._orders = os.fdopen(read_fd, "rb")
        self._messages = os.fdopen(write_fd, "wb", buffering=0)
        self._job = threading.Condition()
        self._job_file: str | None = None
        self.stop = threading.Event()
        threading.Thread(target=self._read_orders, name="orders", daemon=True).start()

    def _read_orders(self) -> None:
        for line in self._orders:
            order = ToChild.validate_json(line)
            with self._job:
                match order:
                    case Stop():
                        self.stop.set()
                    case Train():
                        self._job_file = order.job_file
                self._job.notify_all()
        # The parent closed the pipe or ended, so nothing that this process makes can be published. It exits without clean-up,
        # which could wait for as long as the main thread is inside a CUDA kernel.
        os._exit(_EXIT_STATUS)

    def send(self, message: ChildMessage) -> None:
        """Send a message to the parent."""
        self._messages.write(FromChild.dump_json(message) + b"\n")

    def wait_for_job(self) -> str | None:
        """Return the job's file, or None when the parent asks to stop first."""
        with self._job:
            self._job.wait_for(lambda: self._job_file is not None or self.stop.is_set())
        return self._job_file


def _die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends; exit at once if the parent has ended already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(_EXIT_STATUS)


def main() -> None:
    """Import the libraries, send `ready`, and train one job."""
    _die_with(int(sys.argv[3]))
    # The parent handles Ctrl-C and SIGTERM: it orders a checkpoint first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pipes = Pipes(int(sys.argv[1]), int(sys.argv[2]))
    began = time.monotonic()
    # The deprecation warnings of peft and diffusers address programmers, not the operator who reads this process's log.
    warnings.simplefilter("ignore")
    # These imports take many seconds. They come after the pipes, so that the process notices meanwhile when its parent ends.
    import torch  # noqa: PLC0415 - see above

    from services.trainer.engine import recipe  # noqa: PLC0415 - see above
    from services.trainer.engine.base import pick_device  # noqa: PLC0415 - see above
    from services.trainer.engine.config import Job  # noqa: PLC0415 - see above

    device = pick_device(os.environ["TUNESMITH_DEVICE"])  # pyright: ignore[reportArgumentType] - the parent's checked setting
    memory_bytes = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else None
    pipes.send(Ready(device=str(device), seconds=time.monotonic() - began, memory_bytes=memory_bytes))
    file = pipes.wait_for_job()
    if file is None:
        return
    try:
        job = Job.model_validate_json(Path(file).read_bytes())
        pipes.send(recipe.train(job, pipes.send, pipes.stop.is_set))
    except TunesmithError as error:
        pipes.send(Failed(code=error.code, message=error.message, retryable=error.retryable))
    except Exception as error:  # noqa: BLE001 - the parent must learn about every kind of failure
        sys.excepthook(type(error), error, error.__traceback__)
        # A full disk or a fault of the GPU (torch.AcceleratorError) may pass. Anything else is a bug, which repeats itself.
        passing = isinstance(error, OSError) or type(error).__name__ == "AcceleratorError"
        message = f"the training failed: {public_reason(error)}; the trainer's log has the cause"
        pipes.send(Failed(code=TunesmithError.code, message=message, retryable=passing))


if __name__ == "__main__":
    main()
