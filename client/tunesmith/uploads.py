"""Several uploads at a time, each with a bar of its own, and a total."""

import glob
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from tunesmith import image_files
from tunesmith.client import Client, TunesmithApiError
from tunesmith.failures import INTERRUPTED, line_of
from tunesmith.image_files import shown
from tunesmith.journal import Journal
from tunesmith.local import fail, note
from tunesmith.models import Asset

_WAIT_S = 3600.0
"""Weights of several gigabytes are checked for minutes."""
_WEIGHTS = {".safetensors", ".tar"}


class Uploaded(NamedTuple):
    """The asset of each file, without those of `errors`: a text and an exit code for each file that failed."""

    assets: list[Asset]
    errors: list[tuple[str, int]]


def files_of(paths: Sequence[str], asset_type: str) -> list[Path]:
    """Return the files that paths name: files, folders, and patterns that no shell expanded. Exits if there is none."""
    found: list[Path] = []
    for given in paths:
        path = Path(given)
        matches = [path] if path.exists() else [Path(name) for name in sorted(glob.glob(given, recursive=True))]  # noqa: PTH207 - any depth
        if not matches:
            fail(f"{shown(path)}: there is no such file or folder: check the path")
        found += matches
    if asset_type == "file":
        chosen = image_files.find(found)
        for text in chosen.notes:
            note(text)
        images = chosen.images
    else:
        inner = [child for path in found for child in (sorted(path.iterdir()) if path.is_dir() else [path])]
        images = [file for file in inner if file in found or file.suffix.lower() in _WEIGHTS]
    if not images:
        fail(f"{', '.join(paths)}: there is no file to upload: give files, or folders of such files")
    return images


class _Plan(NamedTuple):
    """A file with the hash of its content, and whether another file of this call gets the name that its own would give."""

    file: Path
    digest: str
    is_second: bool


def upload_all(client: Client, files: Sequence[Path], at_once: int, *, name: str | None = None, **fields: Any) -> Uploaded:
    """Upload the files and wait until the server has checked each of them. An upload that fails does not stop the others."""
    journal = Journal()
    made: dict[Path, Asset] = {}
    errors: list[tuple[str, int]] = []
    plans = _planned(files)
    with FileBars([plan.file for plan in plans]) as bars:
        pool = ThreadPoolExecutor(at_once)
        work = {pool.submit(_one, client, plan, journal, bars, name, fields): plan.file for plan in plans}
        try:
            for done in as_completed(work):
                try:
                    made[work[done]] = done.result()
                except Exception as error:
                    if (line := line_of(error)) is None:
                        raise
                    file = shown(work[done])
                    errors.append((line[0] if line[0].startswith(file) else f"{file}: {line[0]}", line[1]))
        except KeyboardInterrupt:
            bars.stop()
            note("interrupted: run the same command again, and it goes on with the files that are not uploaded yet")
            sys.stderr.flush()
            # The threads would keep the process alive until the files that they send are sent.
            os._exit(INTERRUPTED)
        pool.shutdown()
    return Uploaded([made[file] for file in files if file in made], errors)


def _planned(files: Sequence[Path]) -> list[_Plan]:
    plans: list[_Plan] = []
    first: dict[tuple[str, str], Path] = {}
    for file in files:
        name, digest = image_files.default_name(file), image_files.content_hash(file)
        if (name, digest) in first:
            note(f"{shown(file)}: skipped, it has the name and the content of {shown(first[name, digest])}")
            continue
        plans.append(_Plan(file, digest, is_second=any(name == known for known, _ in first)))
        first[name, digest] = file
    return plans


class FileBars:
    """A bar for each file that is being sent and one for all of them, on a terminal only. Threads may share it."""

    def __init__(self, files: Sequence[Path]) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
        self._sizes = {file: file.stat().st_size for file in files}
        self._sent = dict.fromkeys(files, 0)
        self._tasks: dict[Path, TaskID] = {}
        self._total = self._progress.add_task("total", total=sum(self._sizes.values())) if len(files) > 1 else None

    def __enter__(self) -> Self:
        """Show the bars until the end of the block."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bars."""
        self.stop()

    def stop(self) -> None:
        """Remove the bars."""
        self._progress.stop()

    def show(self, file: Path, sent: int) -> None:
        """Show how many bytes of a file have been sent. The bar of a complete file is removed."""
        size = self._sizes[file]
        if file not in self._tasks:
            self._tasks[file] = self._progress.add_task(shown(file), total=size)
        self._progress.update(self._tasks[file], completed=sent, visible=sent < size)
        if self._total is not None:
            self._progress.advance(self._total, sent - self._sent[file])
        self._sent[file] = sent

    def done(self, file: Path) -> None:
        """Count a whole file, also one that was not sent because the server has it."""
        self.show(file, self._sizes[file])


def _one(client: Client, plan: _Plan, journal: Journal, bars: FileBars, name: str | None, fields: dict[str, Any]) -> Asset:
    file, digest = plan.file, plan.digest
    bar = partial(bars.show, file)
    plain, hashed = name or image_files.default_name(file), image_files.asset_name("", file, digest)

    def send(name: str) -> Asset:
        return client.upload(file, name=name, on_bytes=bar, on_created=lambda made: journal.keep(made, digest), **fields)

    try:
        made = None if plan.is_second else send(plain)
    except TunesmithApiError as error:
        if error.code != "name_taken":
            raise
        made = None
    if made is None:
        known = [item for each in (plain, hashed) for item in client.assets(name=each)]
        own = next((item for item in known if journal.is_of(item.id, digest) or item.name == hashed), None)
        if own is not None and own.is_usable:
            note(f"{shown(file)}: using {own.name}, which is already uploaded")
            made = own
        elif own is not None and own.status == "ready_to_upload":
            note(f"{shown(file)}: resuming the upload of {own.name}")
            made = client.resume_upload(own, file, on_bytes=bar)
        else:
            if own is not None:
                # Rejected before: it holds nothing but the name.
                client.delete_asset(own.id)
            target = name or (own.name if own else hashed)
            if target == hashed:
                note(f"{shown(file)}: another asset has the name {plain}, so this one is named {hashed}")
            made = send(target)
    bars.done(file)
    return client.wait_for_asset(made, timeout_s=_WAIT_S)
