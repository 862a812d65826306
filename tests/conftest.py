"""Real backends for the tests: PostgreSQL, Kafka and the S3 store of the local stack, started once a session; and a whole stack.

`TUNESMITH_TEST_BACKENDS` may name the data folder of backends that run already (`python -m deploy.local.supervise FOLDER 0
--external`), and `TUNESMITH_TEST_STACK` that of a stack (`tunesmith up --detach --data-dir FOLDER`), which saves their start
while developing.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

import migrations
from deploy.local import state
from deploy.local.paths import StackPaths
from deploy.local.ports import is_free
from shared.blobs.store import Blobs
from shared.settings import ServiceSettings
from tunesmith.client import Client

_COMMAND = str(Path(sys.executable).parent / "tunesmith")
_START_S = 120


def _wait_until_ready(paths: StackPaths, supervisor: subprocess.Popen[bytes]) -> state.StackState:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        found = state.read(paths)
        if found and found.ready and found.supervisor == supervisor.pid:
            return found
        if supervisor.poll() is not None:
            break
        time.sleep(0.05)
    log = paths.logs / "supervisor.log"
    pytest.fail(f"the test backends did not start: {log.read_text() if log.exists() else 'no log'}")


@pytest.fixture(scope="session")
def backends_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of the backends, with their secrets."""
    given = os.environ.get("TUNESMITH_TEST_BACKENDS")
    return Path(given) if given else tmp_path_factory.mktemp("backends")


@pytest.fixture(scope="session")
def backends(backends_dir: Path) -> Iterator[dict[str, str]]:
    """The environment of running backends: what a service is configured with."""
    if given := os.environ.get("TUNESMITH_TEST_BACKENDS"):
        running = state.read(StackPaths(Path(given)))
        if running is None:
            pytest.fail(f"TUNESMITH_TEST_BACKENDS names {given}, where nothing runs")
        yield running.env
        return
    paths = StackPaths(backends_dir)
    command = [sys.executable, "-m", "deploy.local.supervise", str(paths.data_dir), "8099", "--external", "--quiet"]
    supervisor = subprocess.Popen(command)
    try:
        yield _wait_until_ready(paths, supervisor).env
    finally:
        supervisor.terminate()
        supervisor.wait(60)


async def _admin(url: str, statement: str) -> None:
    head, _, _ = url.replace("+asyncpg", "").rpartition("/")
    connection = await asyncpg.connect(f"{head}/postgres")
    await connection.execute(statement)
    await connection.close()


def _on(url: str, database: str) -> str:
    return f"{url.rpartition('/')[0]}/{database}"


@pytest.fixture(scope="session")
def _template(backends: dict[str, str]) -> str:
    """Name a migrated database that every test's own is copied from, which takes a tenth of a migration's time."""
    name = f"template_{uuid4().hex}"
    url = backends["TUNESMITH_DATABASE_URL"]

    async def make() -> None:
        await _admin(url, f"CREATE DATABASE {name}")
        await migrations.upgrade(_on(url, name))

    asyncio.run(make())
    return name


@pytest.fixture
async def database_url(backends: dict[str, str], _template: str) -> AsyncIterator[str]:
    """A fresh, migrated database of the test's own."""
    url = backends["TUNESMITH_DATABASE_URL"]
    name = f"test_{uuid4().hex}"
    await _admin(url, f"CREATE DATABASE {name} TEMPLATE {_template}")
    yield _on(url, name)
    await _admin(url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def settings_env(backends: dict[str, str], database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure this process as a service: the backends, the test's own database and bucket, quick polls."""
    bucket = f"test-{uuid4().hex[:12]}"
    env = backends | {
        "TUNESMITH_DATABASE_URL": database_url,
        "TUNESMITH_S3_BUCKET": bucket,
        "TUNESMITH_WORK_DIR": str(tmp_path / "work"),
        "TUNESMITH_PUBLIC_URL": backends["TUNESMITH_S3_ENDPOINT"],
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def make_settings(settings_env: None) -> Callable[..., ServiceSettings]:
    """Return a function that builds a settings class from the test's environment, with overrides."""

    def make(kind: type[ServiceSettings] = ServiceSettings, **overrides: object) -> ServiceSettings:
        return kind(**overrides)  # pyright: ignore[reportArgumentType, reportCallIssue]

    return make


@pytest.fixture
async def blobs(make_settings: Callable[..., ServiceSettings]) -> AsyncIterator[Blobs]:
    """The store, with an empty bucket of the test's own."""
    blobs = Blobs.from_settings(make_settings())
    await blobs.ensure_bucket()
    yield blobs
    await blobs.close()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackPaths]:
    """The folder of a running stack, started and ended by the commands that a person types; all tests of a session share it."""
    if given := os.environ.get("TUNESMITH_TEST_STACK"):
        yield StackPaths(Path(given))
        return
    paths = StackPaths(tmp_path_factory.mktemp("stack"))
    port = next(port for port in range(18200, 18300) if is_free(port))
    # What is uploaded by address can come from its own store: a link to an asset is an address like any other host's.
    imports = {"TUNESMITH_IMPORT_HOSTS": f"http://127.0.0.1:{port}", "TUNESMITH_IMPORT_PRIVATE_NETWORKS": "127.0.0.0/8"}
    up = [_COMMAND, "up", "--detach", "--data-dir", str(paths.data_dir), "--port", str(port)]
    subprocess.run(up, check=True, timeout=300, env=os.environ | imports)
    try:
        yield paths
    finally:
        subprocess.run([_COMMAND, "down", "--data-dir", str(paths.data_dir)], check=True, timeout=180)


@pytest.fixture(scope="session")
def client(stack: StackPaths) -> Iterator[Client]:
    """A client with the stack's own key."""
    running = state.read(stack)
    assert running is not None, f"no stack runs on {stack.data_dir}"
    with Client(running.url, (stack.secrets / "api_key").read_text()) as client:
        yield client
