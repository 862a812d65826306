"""The notebook and the TypeScript example of the docs run as they stand, on a stack and with an account of their own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.local.paths import PROJECT, StackPaths
from tests.sdks.environments import NODE, typescript
from tests.support import notebook
from tunesmith import demo
from tunesmith.client import Client

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def env(client: Client, stack: StackPaths) -> dict[str, str]:
    """The server, the key of a new account, and few steps."""
    command = [Path(sys.executable).parent / "tunesmith", "keys", "create", "docs", "--account", f"docs-{uuid4().hex[:8]}"]
    made = subprocess.run([*command, "--data-dir", stack.data_dir], check=True, capture_output=True, text=True, timeout=120)
    return {"TUNESMITH_URL": client.url, "OCTOAI_TOKEN": made.stdout.split()[-1], "STEPS": "4", "NO_PROXY": "127.0.0.1"}


def test_the_notebook_shows_progress_curve_and_images(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (env | {"PHOTOS": str(demo.SAMPLES)}).items():
        monkeypatch.setenv(name, value)

    shown = notebook.run(PROJECT / "docs" / "notebooks" / "tune.ipynb")

    photos, started, ended, curve, sample, image, sizes = shown
    assert photos.count(".png") == 5
    assert "notebook-star" in started
    assert '<progress max="4" value="4">' in ended
    assert "<polyline" in curve
    assert "a sks1 star on grass" in sample
    assert "data:image/jpeg;base64," in image
    assert sizes == "[(512, 512), (512, 512), (512, 512)]"
    assert "training" in capsys.readouterr().out


def test_the_typescript_example_has_no_error_of_types_and_draws_an_image(env: dict[str, str], tmp_path: Path) -> None:
    for name in ("package.json", "node_modules"):
        (tmp_path / name).symlink_to(typescript() / name)
    shutil.copy(PROJECT / "docs" / "examples" / "tune.ts", tmp_path)
    packages = tmp_path / "node_modules"

    def node(*words: str | Path) -> str:
        done = subprocess.run(
            [NODE, *words], cwd=tmp_path, env=os.environ | env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # Without the option, fields that have a default count as required.
    types = (f"{env['TUNESMITH_URL']}/openapi.json", "--default-non-nullable", "false", "-o", "tunesmith.d.ts")
    node(packages / "openapi-typescript" / "bin" / "cli.js", *types)
    options = ("--noEmit", "--strict", "--skipLibCheck", "--allowImportingTsExtensions", "--types", "node")
    node(packages / "typescript" / "bin" / "tsc", *options, "--module", "nodenext", "--target", "es2023", "tune.ts")
    told = node("tune.ts", *sorted(demo.SAMPLES.glob("*.png")))

    assert told == "star.png, seed 1\n"
    assert (tmp_path / "star.png").read_bytes().startswith(b"\x89PNG")
