"""Real backends for the tests: PostgreSQL, Kafka and the S3 store of the local stack, started once a run; and a whole stack.

`TUNESMITH_TEST_BACKENDS` may name the data folder of backends that run already (`python -m deploy.local.supervise FOLDER 0
--external`), and `TUNESMITH_TEST_STACK` that of a stack (`tunesmith up --detach --data-dir FOLDER`), which saves their start
while developing.
"""

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import settings

import migrations
from deploy.local import state
from deploy.local.paths import StackPaths
from deploy.local.ports import is_free
from shared.blobs.store import Blobs
from shared.settings import ServiceSettings
from tests.support.lanes import Lanes, place
from tests.support.running_stack import start_supervisor
from tests.support.shared_run import COMMAND, SharedRun
from tunesmith.client import Client

# Read when torch is imported, here and in the processes that tests start. The models of the tests are so small that threads wait
# for each other most of the time; on busy cores that makes a step ten times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")


_RUN = pytest.StashKey[SharedRun]()
_HAS_FAILED = pytest.StashKey[bool]()


# The same examples in every run: a change must not fail by an input that has nothing to do with it. `make faults` looks for new ones.
settings.register_profile("steady", derandomize=True)
settings.register_profile("searching", derandomize=False)


def pytest_configure(config: pytest.Config) -> None:
    """Make the folder that the processes of this run share; a worker of pytest-xdist is told where it is."""
    settings.load_profile("searching" if "long" in config.option.markexpr.replace("not long", "", 1) else "steady")
    if given := getattr(config, "workerinput", None):
        config.stash[_RUN] = SharedRun(Path(given["shared_run"]))
        return
    config.stash[_RUN] = SharedRun(Path(tempfile.mkdtemp(prefix="tunesmith-tests-")))
    # SIGTERM ends the run as Ctrl-C does, so that a cancelled CI job leaves no processes behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker which folder the run shares."""
    node.workerinput["shared_run"] = str(node.config.stash[_RUN].folder)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deal out lanes, whichever `--dist` was chosen: a test must not share its stack with one that kills processes of it."""
    return Lanes(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest lanes first where several workers share them."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: place(item.nodeid))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remember whether the logs of the stacks may be needed."""
    session.config.stash[_HAS_FAILED] = exitstatus not in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what the run has started, however it went."""
    if not hasattr(config, "workerinput"):
        config.stash[_RUN].end(keep=config.stash.get(_HAS_FAILED, False))


@pytest.fixture(scope="session")
def shared_run(pytestconfig: pytest.Config) -> SharedRun:
    """What this process shares with the other workers of its run."""
    return pytestconfig.stash[_RUN]


@pytest.fixture(scope="session")
def backends_dir(shared_run: SharedRun) -> Path:
    """The data folder of the running backends, with their secrets."""
    if given := os.environ.get("TUNESMITH_TEST_BACKENDS"):
        return Path(given)

    def start() -> str:
        folder = shared_run.stack_folder("backends")
        with shared_run.locked("start"):
            start_supervisor(StackPaths(folder), 8099, "--external")
        return str(folder)

    return Path(shared_run.once("backends", start))


@pytest.fixture(scope="session")
def backends(backends_dir: Path) -> dict[str, str]:
    """The environment of running backends: what a service is configured with."""
    running = state.read(StackPaths(backends_dir))
    if running is None:
        pytest.fail(f"no backends run on {backends_dir}")
    return running.env


async def _admin(url: str, statement: str) -> None:
    head, _, _ = url.replace("+asyncpg", "").rpartition("/")
    connection = await asyncpg.connect(f"{head}/postgres")
    await connection.execute(statement)
    await connection.close()


def _on(url: str, database: str) -> str:
    return f"{url.rpartition('/')[0]}/{database}"


@pytest.fixture(scope="session")
def _template(backends: dict[str, str], shared_run: SharedRun) -> str:
    """Name a migrated database that every test's own is copied from, which takes a tenth of a migration's time."""
    url = backends["TUNESMITH_DATABASE_URL"]

    async def make(name: str) -> str:
        await _admin(url, f"CREATE DATABASE {name}")
        await migrations.upgrade(_on(url, name))
        return name

    return shared_run.once("template", lambda: asyncio.run(make(f"template_{uuid4().hex}")))


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
def stack(shared_run: SharedRun) -> StackPaths:
    """The folder of a running stack, started and ended by the commands that users type; all tests of a run share it."""
    if given := os.environ.get("TUNESMITH_TEST_STACK"):
        return StackPaths(Path(given))

    def start() -> str:
        folder = shared_run.stack_folder("whole")
        port = next(port for port in range(18200, 18300) if is_free(port))
        # Tests upload by address from the stack itself: a link to an asset in its store is an address like any other.
        imports = {"TUNESMITH_IMPORT_HOSTS": f"http://127.0.0.1:{port}", "TUNESMITH_IMPORT_PRIVATE_NETWORKS": "127.0.0.0/8"}
        up = [COMMAND, "up", "--detach", "--data-dir", folder, "--port", str(port)]
        with shared_run.locked("start"):
            subprocess.run(up, check=True, timeout=300, env=os.environ | imports)
        return str(folder)

    return StackPaths(Path(shared_run.once("stack", start)))


@pytest.fixture(scope="session")
def client(stack: StackPaths) -> Iterator[Client]:
    """A client with the stack's own key."""
    running = state.read(stack)
    assert running is not None, f"no stack runs on {stack.data_dir}"
    with Client(running.url, (stack.secrets / "api_key").read_text()) as client:
        yield client
