"""The losses and the speed of the steps, as they are reported."""

import time

import torch

from services.trainer.engine.reports import StepReport

_REPORT_EVERY_S = 0.25


class LossMeter:
    """The losses of the steps since the last report, and the speed of these steps.

    Reading a loss makes the CPU wait until the GPU has finished its step. The losses therefore stay on the device, and are
    read together a few times a second.
    """

    def __init__(self, first: int) -> None:
        self._first = first
        self._losses: list[torch.Tensor] = []
        self._since = time.monotonic()

    def add(self, loss: torch.Tensor) -> None:
        """Take the loss of a step."""
        self._losses.append(loss.detach())

    def is_due(self) -> bool:
        """Return whether the next report should be made."""
        return time.monotonic() - self._since >= _REPORT_EVERY_S

    def read(self, done: int) -> StepReport:
        """Return the report of the steps up to `done`, and begin the next one."""
        losses: list[float] = torch.stack(self._losses).tolist()
        mean = sum(losses) / len(losses)
        took_s = time.monotonic() - self._since
        speed = len(losses) / took_s if took_s > 0 else None
        self._losses.clear()
        self.restart_clock()
        return StepReport(step=done, loss=mean, steps_per_second=speed, steps_run=done - self._first, losses=losses)

    def restart_clock(self) -> None:
        """Measure the speed from now on."""
        self._since = time.monotonic()
