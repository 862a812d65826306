"""Shows a tune until it has ended: its progress and its curve on a terminal, its status elsewhere."""

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from tunesmith.client import Client, Tune
from tunesmith.failures import NOT_SUCCEEDED
from tunesmith.local import say, show_json
from tunesmith.plot import plot

_ROWS = 8
_MARGIN = 12
"""Columns beside the curve, for its highest and lowest value."""
_EVERY_S = 1.0


class _Curve:
    """The losses of a tune, of which only new ones are asked for."""

    def __init__(self, client: Client, tune_id: str) -> None:
        self._client, self._id, self._last = client, tune_id, 0
        self.losses: dict[int, float] = {}

    def update(self, tune: Tune) -> None:
        """Ask for the losses of later steps than the last known one."""
        step = tune.progress.step if tune.progress else 0
        if step < self._last:
            # Another attempt resumed from an earlier step.
            self.losses = {known: loss for known, loss in self.losses.items() if known <= step}
            self._last = step
        if step > self._last:
            found = self._client.losses(self._id, after=self._last)
            given = enumerate(found.losses, found.first_step)
            self.losses |= {number: loss for number, loss in given if loss is not None}
            self._last = max(self.losses, default=step)


def watch(client: Client, tune_id: str, *, json: bool) -> None:
    """Show the tune until it has ended. Exits with 6 unless it succeeded."""
    console = Console(stderr=True)
    ended: Tune | None = None
    if console.is_terminal:
        curve = _Curve(client, tune_id)
        with Live(console=console, refresh_per_second=4) as live:
            for ended in client.watch(tune_id, _EVERY_S):
                curve.update(ended)
                live.update(_drawn(ended, curve, console.width))
    else:
        status = ""
        for ended in client.watch(tune_id):
            if not json and ended.status != status and not ended.has_ended:
                say(f"{ended.id}  {ended.name}  {ended.status}")
            status = ended.status
    assert ended is not None  # noqa: S101 - watching yields at least once
    if json:
        show_json(ended)
    else:
        say(f"{ended.id}  {ended.name}  {ended.status} {ended.status_details}".rstrip())
    if ended.status != "succeeded":
        raise typer.Exit(NOT_SUCCEEDED)


def _drawn(tune: Tune, curve: _Curve, width: int) -> Group:
    lines: list[Text | ProgressBar] = [Text(f"{tune.name}  {_state(tune)}")]
    if tune.progress:
        lines.append(ProgressBar(total=tune.progress.steps, completed=tune.progress.step, width=width - _MARGIN))
    if curve.losses:
        lines += [Text(line, style="magenta", no_wrap=True) for line in plot(list(curve.losses.values()), width - _MARGIN, _ROWS)]
    return Group(*lines)


def _state(tune: Tune) -> str:
    if tune.queue:
        waits = {
            "files": f"{tune.queue.files_unchecked} images are being checked",
            "ahead": f"{tune.queue.ahead} tunes are before it",
            "no_trainer": "no trainer is connected",
        }
        return f"{tune.status}: {waits.get(tune.queue.reason, tune.queue.reason)}"
    progress = tune.progress
    if progress is None or tune.has_ended:
        return tune.phase if not tune.has_ended else tune.status
    parts = [f"{tune.phase}, step {progress.step} of {progress.steps}"]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4f}")
    if progress.steps_per_second:
        parts.append(f"{progress.steps_per_second:.1f} steps/s")
    if progress.eta_seconds is not None:
        parts.append(f"{progress.eta_seconds:.0f} s left")
    return ", ".join(parts)
