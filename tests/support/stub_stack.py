"""A whole local stack whose two workers need no torch, for tests that kill its processes.

As a program (`python -m tests.support.stub_stack DATA_DIR PORT [--external]`) it is the product's supervisor with other commands
for the two workers. All other processes, and how they are started, watched and restarted, are the product's.
"""

import asyncio
import dataclasses
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg

from deploy.local import stack, supervise
from deploy.local.paths import StackPaths
from deploy.local.ports import is_free
from deploy.local.state import ProcessState
from shared.settings import ServiceSettings
from tests.support.running_stack import RunningStack, start_supervisor

LEASE_S = 5.0
_STUBS = {"trainer": "tests.support.stub_trainer", "inference-worker": "tests.support.stub_worker"}
_ENV = {
    "TUNESMITH_LEASE_S": str(LEASE_S),
    "TUNESMITH_RENEW_EVERY_S": "0.5",
    "TUNESMITH_POLL_S": "0.5",
    "TUNESMITH_REAP_EVERY_S": "0.5",
    "TUNESMITH_RECONCILE_EVERY_S": "0.5",
    "TUNESMITH_REGISTRATION_BOUND_S": "2",
    "TUNESMITH_INTAKE_BOUND_S": "2",
    "TUNESMITH_REQUEUE_HINT_S": "2",
    "TUNESMITH_GENERATION_HINT_S": "2",
    "TUNESMITH_CLAIM_S": str(LEASE_S),
    "TUNESMITH_CHECKPOINT_EVERY_STEPS": "5",
    "TUNESMITH_RUNNING_PER_ACCOUNT": "100",
    "TUNESMITH_MAX_ATTEMPTS": "20",
}
"""Bounds of seconds, where the product's are half a minute."""
_START_S, _SLACK_S = 600.0, 300.0


class StubStack(RunningStack):
    """Starts and ends one such stack."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(StackPaths(data_dir))
        self._supervisor: subprocess.Popen[bytes] | None = None

    def start(self, *, only_external: bool = False) -> None:
        """Start it and wait until it is ready; with `only_external`, start only its database, broker and store."""
        port = next(port for port in range(18300, 18400) if is_free(port))
        options = ["--external"] if only_external else []
        self._supervisor = start_supervisor(
            self.paths, port, *options, module="tests.support.stub_stack", env=_ENV, bound_s=_START_S + _SLACK_S
        )

    def end(self) -> None:
        if self._supervisor:
            self._supervisor.terminate()
            self._supervisor.wait(60)

    def settings(self) -> ServiceSettings:
        """Return the settings for a process that works beside the stack's own."""
        env = self.state.env
        fields = {name.removeprefix("TUNESMITH_").lower(): env[name] for name in env if name.startswith("TUNESMITH_")}
        return ServiceSettings.model_validate(fields)

    def lose_broker_data(self) -> ProcessState:
        """Kill the broker after removing all that it has written, and return its state before that."""
        process = self.process("kafka")
        before = self.state.processes["kafka"]
        process.send_signal(signal.SIGSTOP)
        shutil.rmtree(self.paths.kafka)
        process.kill()
        return before

    def scalar(self, query: str, *arguments: object) -> Any:
        """Return a query's value from the stack's database."""

        async def look() -> Any:
            connection = await asyncpg.connect(self.state.env["TUNESMITH_DATABASE_URL"].replace("+asyncpg", ""))
            try:
                return await connection.fetchval(query, *arguments)
            finally:
                await connection.close()

        return asyncio.run(look())

    def let_go(self, tune_id: str) -> None:
        """End the wait of a tune whose trigger word is `hold@N`, in whichever attempt at it waits."""
        for folder in (self.paths.work / "trainer" / "jobs").glob(f"{tune_id}-*"):
            (folder / "go").touch()


def _plan(paths: StackPaths, port: int, *, only_external: bool = False) -> stack.Plan:
    real = stack.plan(paths, port, only_external=only_external)
    processes = (
        dataclasses.replace(process, argv=(sys.executable, "-m", _STUBS[process.name])) if process.name in _STUBS else process
        for process in real.processes
    )
    return dataclasses.replace(real, processes=tuple(processes))


if __name__ == "__main__":
    supervise.plan = _plan
    supervise._START_TIMEOUT_S = _START_S
    paths = StackPaths(Path(sys.argv[1]))
    only_external = "--external" in sys.argv
    sys.exit(asyncio.run(supervise.supervise(paths, int(sys.argv[2]), only_external=only_external, terminal=False)))
