"""Benchmarks report ratios: our rate by that of a peer that is measured in the same run, interleaved with ours.

A ratio means the same on a slow or busy machine. A time does not, and no test asserts one.
"""

import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

ROUNDS = 5
Done = int | tuple[int, float]


@dataclass
class Report:
    """The measurements, as rows of a table."""

    rows: list[tuple[str, float, str, float, str]] = field(default_factory=list)

    async def compare(
        self, ours: str, run_ours: Callable[[], Awaitable[Done]], peer: str, run_peer: Callable[[], Awaitable[Done]]
    ) -> None:
        """Run both in turns, after one round to warm up, and add the medians of their rates to the table.

        Each returns how many things it has done; if not all of its time counts, it returns the seconds that do as well.
        """
        rates: dict[str, list[float]] = {"ours": [], "peer": []}
        for round_ in range(ROUNDS + 1):
            for name, run in (("ours", run_ours), ("peer", run_peer)):
                gc.collect()
                began = time.perf_counter()
                done = await run()
                count, seconds = done if isinstance(done, tuple) else (done, time.perf_counter() - began)
                if round_:
                    rates[name].append(count / seconds)
        mine, other = statistics.median(rates["ours"]), statistics.median(rates["peer"])
        self.rows.append((ours, mine, peer, other, f"{mine / other:.2f}"))


_REPORT = Report()


@pytest.fixture
def report() -> Report:
    """The table of the session."""
    return _REPORT


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table as Markdown."""
    terminalreporter.write_line("")
    terminalreporter.write_line("| ours | a second | peer | a second | ours / peer |")
    terminalreporter.write_line("| --- | --- | --- | --- | --- |")
    for ours, mine, peer, other, ratio in _REPORT.rows:
        terminalreporter.write_line(f"| {ours} | {mine:.3g} | {peer} | {other:.3g} | {ratio} |")
