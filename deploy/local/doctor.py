"""Looks a machine and a stack over: each finding says what is wrong and what to do."""

import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import psutil
from packaging.requirements import Requirement

from deploy.local import kafka, postgres, state
from deploy.local.paths import PROJECT, StackPaths
from deploy.local.ports import LOOPBACK, is_free
from deploy.local.stack import SERVICES

_GIB = 2**30
_LEAST_DISK = 2 * _GIB
_LEAST_MEMORY = 6 * _GIB
_OLDEST_PYTHON = (3, 11)
_LOG_LINES = 200
_NAMED = 5


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and what to do about it if that is not well."""

    level: Literal["ok", "warning", "error"]
    what: str
    advice: str = ""


def examine(paths: StackPaths) -> Iterator[Finding]:
    """Yield a finding for each thing that a local stack needs of this machine, and for each process that runs."""
    yield _python()
    yield _installed()
    yield _disk(paths)
    yield _memory()
    yield _folder(paths)
    if os.geteuid() == 0:
        yield _namespaces()
    yield _jars()
    running = state.read(paths)
    if running is None:
        yield from _not_running(paths)
        return
    yield _ok(f"a stack runs at {running.url}") if running.ready else _starting(running)
    for name, process in running.processes.items():
        yield _process(paths, name, process)


def _ok(what: str) -> Finding:
    return Finding("ok", what)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _OLDEST_PYTHON:
        return Finding("error", f"Python is {version}", "install Python 3.11 or newer and run `make install` again")
    return _ok(f"Python {version}")


def _installed() -> Finding:
    lock = PROJECT / "locks" / "all.txt"
    wrong: list[str] = []
    for line in lock.read_text().splitlines():
        if not line or line.startswith((" ", "#")):
            continue
        wanted = Requirement(line.rstrip("\\ "))
        if wanted.marker and not wanted.marker.evaluate():
            continue
        try:
            found = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            found = "missing"
        if not wanted.specifier.contains(found if found != "missing" else "0", prereleases=True):
            wrong.append(f"{wanted.name} ({found}, locked {wanted.specifier})")
    if wrong:
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        return Finding("error", f"not what the lock says: {', '.join(wrong[:_NAMED])}{more}", "run `make install`")
    return _ok("all packages are the locked ones")


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _disk(paths: StackPaths) -> Finding:
    free = shutil.disk_usage(_existing(paths.data_dir)).free
    text = f"{free / _GIB:.1f} GiB of disk are free for {paths.data_dir}"
    if free < _LEAST_DISK:
        return Finding("error", text, f"free {_LEAST_DISK / _GIB:.0f} GiB, or choose another folder with --data-dir")
    return _ok(text)


def _memory() -> Finding:
    total = psutil.virtual_memory().total
    text = f"{total / _GIB:.1f} GiB of memory"
    if total < _LEAST_MEMORY:
        return Finding(
            "warning", text, f"a stack with its two workers wants {_LEAST_MEMORY / _GIB:.0f} GiB; others may be killed"
        )
    return _ok(text)


def _folder(paths: StackPaths) -> Finding:
    found = _existing(paths.data_dir)
    if not os.access(found, os.W_OK | os.X_OK):
        return Finding("error", f"{found} cannot be written to", "make it yours (chown), or choose another with --data-dir")
    if found == paths.data_dir and found.stat().st_uid != os.geteuid():
        return Finding("error", f"{found} belongs to another user", "start the stack as that user, or use another --data-dir")
    if "," in str(paths.data_dir):
        return Finding("error", f"{paths.data_dir} has a comma in it", "Kafka takes it for two folders: use another --data-dir")
    return _ok(f"the data folder is {paths.data_dir}")


def _namespaces() -> Finding:
    if postgres.namespace_prefix() is None:
        return Finding(
            "warning",
            "you are root, and user namespaces are refused here",
            f"PostgreSQL will run as an unprivileged user, with its data below {postgres.REACHABLE}; or start as another user",
        )
    return _ok("root, with user namespaces for PostgreSQL")


def _jars() -> Finding:
    folder = kafka.jar_folder()
    if not folder.exists():
        return Finding("warning", "Kafka's jars are not here yet", "the first start fetches them, which needs the network")
    if faults := kafka.jar_faults(folder):
        return Finding(
            "error", f"{folder} is not as it was made: {', '.join(faults[:_NAMED])}", "the next start fetches it again"
        )
    return _ok("Kafka's jars are the listed ones")


def _not_running(paths: StackPaths) -> Iterator[Finding]:
    last = state.load(paths)
    if last and last.error:
        yield Finding("error", f"the last start failed: {last.error}", f"the whole story is in {paths.logs}")
    yield _ok(f"no stack runs on {paths.data_dir}")
    known: dict[str, int] = json.loads(paths.ports.read_text()) if paths.ports.exists() else {}
    if taken := [f"{name} {port}" for name, port in known.items() if not is_free(port)]:
        yield Finding(
            "warning", f"ports taken by others: {', '.join(taken)}", "the next start draws new ones; --port names the origin's"
        )


def _starting(running: state.StackState) -> Finding:
    waiting = [name for name, process in running.processes.items() if not process.ready]
    return Finding("warning", f"a stack is starting or stopping at {running.url}: {', '.join(waiting)}", "wait, or see below")


def _process(paths: StackPaths, name: str, process: state.ProcessState) -> Finding:
    log = paths.logs / f"{name}.log"
    text = f"{name}: restarted {process.restarts} times" if process.restarts else name
    problem = "" if process.ready else "not ready"
    if name in SERVICES and process.pid:
        problem = _probe(json.loads(paths.ports.read_text())[name]) or problem
    if not problem:
        return (
            Finding("ok", text) if not process.restarts else Finding("warning", text, f"see why in {paths.logs}/supervisor.log")
        )
    lines = log.read_text().splitlines()[-_LOG_LINES:] if log.exists() else []
    telling = [line for line in lines if any(word in line.lower() for word in ("error", "fatal", "exception"))] or lines
    said = f"; its log says: {telling[-1].strip()}" if telling else ""
    return Finding("error", f"{text}: {problem}{said}", f"see {log}; `tunesmith down` and `up` start it all anew")


def _probe(port: int) -> str:
    """Ask a service how it is; return what is wrong with it, or nothing."""
    for path in ("/health", "/ready"):
        try:
            answer = httpx.get(f"http://{LOOPBACK}:{port}{path}", timeout=5)
        except httpx.HTTPError as error:
            return f"{path} does not answer ({type(error).__name__})"
        if answer.status_code != httpx.codes.OK:
            problems: dict[str, str] = answer.json().get("problems", {})
            return f"{path} says " + "; ".join(f"{part}: {why}" for part, why in problems.items())
    return ""
