"""The parts of a local stack under their supervisor: killed processes are restarted, and none is left behind."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest
import typer
from typer.testing import CliRunner

from deploy.local import state
from deploy.local.commands.stack import up
from deploy.local.paths import StackPaths
from deploy.local.state import StackState
from shared.blobs.store import Blobs
from shared.messaging.topics import ensure_topics
from shared.settings import ServiceSettings

_START_S = 120
_END_S = 15
PARTS = ("postgres", "kafka", "store")


def _wait_for(holds: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.05)


def _processes(data_dir: Path) -> list[psutil.Process]:
    """Return every process that was started for this data folder, the supervisor included."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if any(str(data_dir) in part for part in line) and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


class Stack:
    """The three backends of one data folder, started by the supervisor's own command."""

    def __init__(self, data_dir: Path) -> None:
        self.paths = StackPaths(data_dir)
        self.supervisor: subprocess.Popen[bytes] | None = None

    def start(self) -> StackState:
        command = [sys.executable, "-m", "deploy.local.supervise", str(self.paths.data_dir), "1", "--external", "--quiet"]
        self.supervisor = supervisor = subprocess.Popen(command)

        def is_ready() -> bool:
            assert supervisor.poll() is None, (self.paths.logs / "supervisor.log").read_text()
            found = state.read(self.paths)
            return bool(found and found.ready and found.supervisor == supervisor.pid)

        _wait_for(is_ready, _START_S, "the backends are ready")
        return self.state

    @property
    def state(self) -> StackState:
        found = state.read(self.paths)
        assert found is not None
        return found

    def end(self, number: signal.Signals) -> int:
        assert self.supervisor is not None
        self.supervisor.send_signal(number)
        return self.supervisor.wait(60)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path / "a data dir")
    yield stack
    if stack.supervisor and stack.supervisor.poll() is None:
        stack.end(signal.SIGKILL)
    _wait_for(lambda: not _processes(stack.paths.data_dir), _END_S, "every process has ended")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack for the tests that do not change it."""
    stack = Stack(tmp_path_factory.mktemp("running"))
    stack.start()
    yield stack
    stack.end(signal.SIGTERM)


def _settings(env: Mapping[str, str]) -> ServiceSettings:
    fields = {name.removeprefix("TUNESMITH_").lower(): value for name, value in env.items() if name.startswith("TUNESMITH_")}
    return ServiceSettings.model_validate(fields)


async def _write(settings: ServiceSettings) -> None:
    """Write data to each backend."""
    connection = await asyncpg.connect(settings.database_url.get_secret_value().replace("+asyncpg", ""))
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
    await connection.execute("INSERT INTO kept VALUES ('kept')")
    await connection.close()
    assert await ensure_topics(settings)
    blobs = Blobs.from_settings(settings)
    await blobs.ensure_bucket()
    await blobs.put_bytes("kept", b"kept" * 300_000, "text/plain")
    await blobs.close()


async def _assert_kept(settings: ServiceSettings) -> None:
    connection = await asyncpg.connect(settings.database_url.get_secret_value().replace("+asyncpg", ""))
    assert await connection.fetchval("SELECT value FROM kept") == "kept"
    await connection.close()
    assert await ensure_topics(settings) == [], "the topics exist already"
    blobs = Blobs.from_settings(settings)
    assert await blobs.get_bytes("kept", max_bytes=2_000_000) == b"kept" * 300_000, "a store that is ready has its volumes"
    await blobs.put_bytes("at-once", b"1")
    await blobs.close()


async def test_killed_processes_are_restarted_with_their_data(stack: Stack) -> None:
    before = stack.start()
    settings = _settings(before.env)
    await _write(settings)
    for name in PARTS:
        pid = before.processes[name].pid
        assert pid
        psutil.Process(pid).kill()

    def all_back() -> bool:
        now = stack.state.processes
        return all(now[name].ready and now[name].restarts == 1 and now[name].pid != before.processes[name].pid for name in PARTS)

    _wait_for(all_back, _START_S, "all three run again")
    await _assert_kept(settings)


async def test_a_killed_supervisor_leaves_no_orphan_and_the_next_start_recovers(stack: Stack) -> None:
    first = stack.start()
    await _write(_settings(first.env))
    stack.end(signal.SIGKILL)
    _wait_for(lambda: not _processes(stack.paths.data_dir), _END_S, "every process has ended by itself")

    second = stack.start()
    assert second.env == first.env, "ports and passwords are remembered"
    await _assert_kept(_settings(second.env))


async def test_a_start_right_after_a_kill_waits_for_the_old_processes(stack: Stack) -> None:
    first = stack.start()
    stack.end(signal.SIGKILL)
    assert stack.start().env == first.env


async def test_ctrl_c_stops_every_process_cleanly(stack: Stack) -> None:
    stack.start()
    assert stack.end(signal.SIGINT) == 0
    assert _processes(stack.paths.data_dir) == []
    assert "database system is shut down" in (stack.paths.logs / "postgres.log").read_text()
    assert state.read(stack.paths) is None


async def test_one_data_folder_has_one_stack(running: Stack) -> None:
    app = typer.Typer()
    app.command()(up)
    refused = CliRunner().invoke(app, ["--data-dir", str(running.paths.data_dir)])
    assert refused.exit_code == 1
    assert "already running" in refused.output


async def test_only_the_owner_can_read_the_secrets(running: Stack) -> None:
    folder = running.paths
    assert folder.data_dir.stat().st_mode & 0o077 == 0
    assert [path.name for path in folder.secrets.iterdir() if path.stat().st_mode & 0o077] == []
    assert folder.state.stat().st_mode & 0o077 == 0
    for process in _processes(folder.data_dir):
        line = " ".join(process.cmdline())
        assert running.state.env["TUNESMITH_S3_SECRET_KEY"] not in line
        assert (folder.secrets / "postgres_password").read_text() not in line


async def test_every_process_listens_on_loopback_alone(running: Stack) -> None:
    listening = {
        connection.laddr.ip
        for process in _processes(running.paths.data_dir)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening
    assert all(address in {"127.0.0.1", "::ffff:127.0.0.1"} for address in listening), listening


async def test_a_stranger_cannot_read_the_store_or_the_database(running: Stack) -> None:
    await _write(_settings(running.state.env))
    url = running.state.env["TUNESMITH_DATABASE_URL"].replace("+asyncpg", "")
    password = (running.paths.secrets / "postgres_password").read_text()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(url.replace(password, "wrong"))
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{running.state.env['TUNESMITH_S3_ENDPOINT']}/tunesmith/kept")).status_code == 403
