"""The operator's commands for a local stack: up, down, env, migrate, doctor."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

import migrations
from deploy.local import state
from deploy.local.doctor import examine
from deploy.local.paths import StackPaths, default_data_dir
from deploy.local.ports import DEFAULT_PORT, choose, is_free
from deploy.local.supervise import StartError, supervise

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="The stack's folder; without it, the default stack's.")]
_START_TIMEOUT_S = 240
_STOP_TIMEOUT_S = 60
_KILL_TIMEOUT_S = 10


def up(
    detach: Annotated[bool, typer.Option("--detach", help="Return when all is ready, and leave it running.")] = False,
    data_dir: DataDir = None,
    port: Annotated[
        int | None,
        typer.Option(help=f"The port of the one origin; without it, the last one or {DEFAULT_PORT}, or any if that is taken."),
    ] = None,
) -> None:
    """Start the local stack: in the foreground with one merged log, or detached."""
    paths = _paths(data_dir)
    if running := _running(paths):
        print(f"already running at {running.url} (data in {paths.data_dir})")
        if not detach:
            raise typer.Exit(1)
        _wait_until_ready(paths, running.supervisor)
        return
    if port is not None and not is_free(port):
        _fail(f"--port: {port} is taken by another program; choose another, e.g. --port {port + 1}")
    paths.create()
    port = port or choose(paths.ports)
    if not detach:
        try:
            code = asyncio.run(supervise(paths, port, only_external=False, terminal=True))
        except StartError as error:
            _fail(str(error))
        raise typer.Exit(code)
    with (paths.logs / "supervisor.out").open("ab") as out:
        command = [sys.executable, "-m", "deploy.local.supervise", str(paths.data_dir), str(port), "--quiet"]
        started = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    _wait_until_ready(paths, started.pid)
    print(f"ready at http://127.0.0.1:{port} (data in {paths.data_dir}, logs in {paths.logs})")


def down(data_dir: DataDir = None) -> None:
    """End every process of the local stack."""
    paths = _paths(data_dir)
    if not state.is_locked(paths.lock):
        print(f"nothing runs on {paths.data_dir}")
        return
    running = state.read(paths)
    if running:
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.supervisor, signal.SIGTERM)
    if not _wait_for_lock(paths, _STOP_TIMEOUT_S):
        # Its death ends them all: each process asked the kernel for that.
        _fail_unless_killed(paths)
    print("stopped")


def env(data_dir: DataDir = None) -> None:
    """Print the exports that point any client at the running local stack."""
    paths = _paths(data_dir)
    running = state.read(paths)
    if running is None:
        _fail(f"no stack runs on {paths.data_dir}: start it with `tunesmith up`")
    print(f"export TUNESMITH_URL={running.url} OCTOAI_TOKEN={(paths.secrets / 'api_key').read_text()}")


def migrate(
    database_url: Annotated[str | None, typer.Option(envvar="TUNESMITH_DATABASE_URL", help="PostgreSQL.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Bring a database to the newest schema: the given one, or the running local stack's."""
    running = state.read(_paths(data_dir))
    url = database_url or (running.env["TUNESMITH_DATABASE_URL"] if running else None)
    if url is None:
        _fail("--database-url: not given, and no local stack runs")
    asyncio.run(migrations.upgrade(url))
    print("the schema is up to date")


def doctor(data_dir: DataDir = None) -> None:
    """Say what is wrong with this machine or a stack, and what to do. Exits with 1 when something keeps it from working."""
    findings = list(examine(_paths(data_dir)))
    for finding in findings:
        print(f"{finding.level:<8} {finding.what}" + (f"\n         -> {finding.advice}" if finding.advice else ""))
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


def _paths(data_dir: Path | None) -> StackPaths:
    return StackPaths((data_dir or default_data_dir()).resolve())


def _wait_for_lock(paths: StackPaths, timeout_s: float) -> bool:
    """Wait until no process of the stack lives; say whether that came true in time."""
    deadline = time.monotonic() + timeout_s
    while state.is_locked(paths.lock):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _fail_unless_killed(paths: StackPaths) -> None:
    if running := state.read(paths):
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.supervisor, signal.SIGKILL)
        for process in running.processes.values():
            if process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    if not _wait_for_lock(paths, _KILL_TIMEOUT_S):
        _fail(f"processes of the stack on {paths.data_dir} cannot be ended: look for them with `fuser {paths.lock}`")


def _fail(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(1)


def _running(paths: StackPaths) -> state.StackState | None:
    """Return the stack that runs here; waits for what a killed one left behind, whose processes are about to end."""
    deadline = time.monotonic() + _KILL_TIMEOUT_S
    while (locked := state.is_locked(paths.lock)) and time.monotonic() < deadline:
        found = state.load(paths)
        if found and _is_alive(found.supervisor):
            return found
        time.sleep(0.1)
    if locked:
        _fail_unless_killed(paths)
    return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A killed supervisor that nobody has waited for is a zombie, which answers signals.
    with contextlib.suppress(OSError):
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    return True


def _wait_until_ready(paths: StackPaths, supervisor: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        found = state.load(paths)
        if found and found.supervisor == supervisor:
            if found.ready:
                return
            if found.error:
                _fail(f"the stack did not start: {found.error}\nlogs: {paths.logs}")
        if not _is_alive(supervisor):
            _fail(f"the stack did not start: its supervisor ended; see {paths.logs}/supervisor.out")
        time.sleep(0.1)
    _fail(f"the stack was not ready after {_START_TIMEOUT_S} s; see {paths.logs}")
