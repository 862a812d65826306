"""`tunesmith doctor`: check this machine and a stack. Each finding says what is wrong and what to do."""

import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Literal

import httpx
import psutil
import typer
from packaging.requirements import Requirement

from deploy.local import state
from deploy.local.commands.options import DataDir, stack_paths
from deploy.local.parts import kafka, postgres
from deploy.local.paths import PROJECT, StackPaths
from deploy.local.ports import LOOPBACK, is_free
from deploy.local.stack import SERVICES

_GIB = 2**30
_LEAST_DISK = 2 * _GIB
_LEAST_MEMORY = 6 * _GIB
_OLDEST_PYTHON = (3, 11)
_LOG_LINES = 200
_NAMED = 5
"""How many packages or files a finding names."""
_ELSEWHERE = "choose another folder with --data-dir"


@dataclass(frozen=True)
class Finding:
    """What was checked, the result, and what to do if it is not well."""

    level: Literal["ok", "warning", "error"]
    what: str
    advice: str = ""


def doctor(data_dir: DataDir = None) -> None:
    """Check this machine and the local stack, and say what to do about each problem. Exits with 1 if something does not work."""
    findings = list(examine(stack_paths(data_dir)))
    for finding in findings:
        print(f"{finding.level:<8} {finding.what}" + (f"\n         -> {finding.advice}" if finding.advice else ""))
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


def examine(paths: StackPaths) -> Iterator[Finding]:
    """Yield a finding for each thing that a local stack needs of this machine, and for each process of a running stack."""
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
    yield _ok(f"a stack is running at {running.url}") if running.ready else _starting(running)
    for name, process in running.processes.items():
        yield _process(paths, name, process)


def _ok(what: str) -> Finding:
    return Finding("ok", what)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _OLDEST_PYTHON:
        return Finding("error", f"Python {version} is too old", "install Python 3.11 or newer, then run `make install` again")
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
            wrong.append(f"{wanted.name} ({found}, the lock says {wanted.specifier})")
    if wrong:
        more = f" and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        return Finding("error", f"packages differ from the lock: {', '.join(wrong[:_NAMED])}{more}", "run `make install`")
    return _ok("all packages are the ones in the lock")


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _disk(paths: StackPaths) -> Finding:
    free = shutil.disk_usage(_existing(paths.data_dir)).free
    text = f"{free / _GIB:.1f} GiB of disk are free for {paths.data_dir}"
    if free < _LEAST_DISK:
        return Finding("error", text, f"free {_LEAST_DISK / _GIB:.0f} GiB, or {_ELSEWHERE}")
    return _ok(text)


def _memory() -> Finding:
    total = psutil.virtual_memory().total
    text = f"{total / _GIB:.1f} GiB of memory"
    if total < _LEAST_MEMORY:
        return Finding(
            "warning",
            text,
            f"a stack with its two workers needs {_LEAST_MEMORY / _GIB:.0f} GiB: stop other programs before you start it",
        )
    return _ok(text)


def _folder(paths: StackPaths) -> Finding:
    found = _existing(paths.data_dir)
    if not os.access(found, os.W_OK | os.X_OK):
        return Finding("error", f"you may not write to {found}", f"change its owner (chown), or {_ELSEWHERE}")
    if found == paths.data_dir and found.stat().st_uid != os.geteuid():
        return Finding("error", f"{found} belongs to another user", f"start the stack as that user, or {_ELSEWHERE}")
    if "," in str(paths.data_dir):
        return Finding(
            "error",
            f"{paths.data_dir} has a comma in it",
            f"Kafka reads that as two folders: {_ELSEWHERE}",
        )
    return _ok(f"the data folder is {paths.data_dir}")


def _namespaces() -> Finding:
    if postgres.namespace_prefix() is None:
        return Finding(
            "warning",
            "you are root, and this machine does not allow user namespaces",
            f"start the stack as another user, or let PostgreSQL run as user 65534 and keep its data below {postgres.REACHABLE}",
        )
    return _ok("you are root, and PostgreSQL can run in a user namespace")


def _jars() -> Finding:
    folder = kafka.jar_folder()
    if not folder.exists():
        return Finding("warning", "Kafka's jars are not downloaded yet", "the first start downloads them and needs the network")
    if faults := kafka.jar_faults(folder):
        return Finding(
            "error",
            f"{folder} has missing, changed or unknown files: {', '.join(faults[:_NAMED])}",
            "the next start downloads it again",
        )
    return _ok("Kafka's jars are complete and unchanged")


def _not_running(paths: StackPaths) -> Iterator[Finding]:
    last = state.load(paths)
    if last and last.error:
        yield Finding("error", f"the last start failed: {last.error}", f"the logs in {paths.logs} say more")
    yield _ok(f"no stack is running on {paths.data_dir}")
    known: dict[str, int] = json.loads(paths.ports.read_text()) if paths.ports.exists() else {}
    if taken := [f"{name} {port}" for name, port in known.items() if not is_free(port)]:
        yield Finding(
            "warning",
            f"other programs use these ports of the stack: {', '.join(taken)}",
            "nothing to do: the next start chooses new ones",
        )


def _starting(running: state.StackState) -> Finding:
    waiting = [name for name, process in running.processes.items() if not process.ready]
    return Finding(
        "warning",
        f"a stack is starting or stopping at {running.url}: not ready are {', '.join(waiting)}",
        "wait, or look at the lines below",
    )


def _process(paths: StackPaths, name: str, process: state.ProcessState) -> Finding:
    log = paths.logs / f"{name}.log"
    text = f"{name}: restarted {process.restarts} times" if process.restarts else name
    problem = "" if process.ready else "not ready"
    if name in SERVICES and process.pid:
        problem = _probe(json.loads(paths.ports.read_text())[name]) or problem
    if not problem:
        return Finding("ok", text) if not process.restarts else Finding("warning", text, f"{paths.logs}/supervisor.log says why")
    lines = log.read_text().splitlines()[-_LOG_LINES:] if log.exists() else []
    problems = [line for line in lines if any(word in line.lower() for word in ("error", "fatal", "exception"))] or lines
    said = f"; its log says: {problems[-1].strip()}" if problems else ""
    return Finding(
        "error", f"{text}: {problem}{said}", f"read {log}; to restart the stack: `tunesmith down`, then `tunesmith up`"
    )


def _probe(port: int) -> str:
    """Return what a service says is wrong with it, or an empty text."""
    for path in ("/health", "/ready"):
        try:
            answer = httpx.get(f"http://{LOOPBACK}:{port}{path}", timeout=5)
        except httpx.HTTPError as error:
            return f"{path} does not answer ({type(error).__name__})"
        if answer.status_code != HTTPStatus.OK:
            problems: dict[str, str] = answer.json().get("problems", {})
            return f"{path} says " + "; ".join(f"{part}: {why}" for part, why in problems.items())
    return ""
