"""MinIO, which Go builds once into the user's cache, for the tests of the store's contract."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

import httpx
import pytest

from deploy.local.ports import LOOPBACK, allot
from tests.support.cached import cached

VERSION = "v0.0.0-20250907161309-07c3a429bfed"
"""RELEASE.2025-09-07T16-13-09Z, under the name that Go gives it; the compose file runs the same release."""
BUILD_S = 1500
"""4 minutes on 4 idle cores; a bound for 2 busy ones."""
_START_S = 60


@dataclass(frozen=True)
class S3Store:
    """The address of an S3 store, and its keys."""

    endpoint: str
    access_key: str
    secret_key: str


def _binary() -> Path:
    return cached(f"minio-{VERSION}", _build) / "minio"


def _build(folder: Path) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.fail("there is no Go on the PATH, which builds MinIO from its source: install Go 1.24 or newer")
    command = [go, "install", f"github.com/minio/minio@{VERSION}"]
    env = os.environ | {"GOBIN": str(folder)}
    built = subprocess.run(command, env=env, capture_output=True, text=True, timeout=BUILD_S, check=False)
    if built.returncode != 0:
        pytest.fail(f"`{' '.join(command)}` failed:\n{built.stderr[-3000:]}")


@contextmanager
def minio_server(folder: Path) -> Iterator[S3Store]:
    """Run MinIO with its data in a folder until the block ends."""
    binary = _binary()
    port = allot(folder.with_suffix(".json"), ["minio"], origin=0)["minio"]
    store = S3Store(f"http://{LOOPBACK}:{port}", "tunesmith", token_hex(16))
    command = [
        binary,
        "server",
        "--quiet",
        "--address",
        f"{LOOPBACK}:{port}",
        "--console-address",
        f"{LOOPBACK}:0",
        folder,
    ]
    env = {
        "HOME": str(folder),
        "MINIO_ROOT_USER": store.access_key,
        "MINIO_ROOT_PASSWORD": store.secret_key,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
    }
    log = folder.with_suffix(".log")
    with log.open("wb") as out, subprocess.Popen(command, env=env, stdout=out, stderr=out) as process:
        try:
            _wait_until_ready(store, process, log)
            yield store
        finally:
            process.kill()


def _wait_until_ready(store: S3Store, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{store.endpoint}/minio/health/ready", timeout=2).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    pytest.fail(f"MinIO did not start: {log.read_text()[-3000:]}")
