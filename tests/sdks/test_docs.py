"""The commands of README and guide run as they stand, and the migration page's lines are those that the SDKs are driven with."""

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.local.paths import PROJECT, StackPaths
from tests.sdks.environments import DRIVERS
from tunesmith import demo
from tunesmith.client import Client

pytestmark = pytest.mark.timeout(600)
README = (PROJECT / "README.md").read_text()
GUIDE = (PROJECT / "docs" / "guide.md").read_text()
MIGRATING = (PROJECT / "docs" / "migrating-from-octoai.md").read_text()


def _blocks(text: str, *languages: str) -> list[str]:
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def key(stack: StackPaths) -> str:
    """The key of an account of the test's own: its names are those of the page, whatever the stack has been used for."""
    account = f"docs-{uuid4().hex[:8]}"
    command = [Path(sys.executable).parent / "tunesmith", "keys", "create", "docs", "--account", account]
    made = subprocess.run([*command, "--data-dir", stack.data_dir], check=True, capture_output=True, text=True, timeout=120)
    return made.stdout.split()[-1]


def test_the_guides_commands_run_one_after_the_other(client: Client, key: str, tmp_path: Path) -> None:
    samples = tmp_path / "client" / "tunesmith" / "samples"
    shutil.copytree(demo.SAMPLES, samples)
    first, *others = _blocks(GUIDE, "sh")
    # The one line that is not run: it would choose the person's own stack instead of the test's.
    told = first.replace('eval "$(tunesmith env)"', ":")
    assert told != first
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "NO_PROXY": "127.0.0.1",
        "TUNESMITH_URL": client.url,
        "OCTOAI_TOKEN": key,
        "STEPS": "4",
    }
    script = "set -euo pipefail\n" + "\n".join([told, *others])
    options = {"cwd": tmp_path, "env": env, "timeout": 540}
    run = subprocess.run(["bash", "-c", script], check=False, capture_output=True, text=True, **options)

    assert run.returncode == 0, run.stdout + run.stderr
    images = tmp_path / "my-star" / "images"
    assert (images / "star.jpg").read_bytes().startswith(b"\xff\xd8\xff")
    assert len(list(images.glob("*.png"))) == 2
    with Client(client.url, key) as own:
        assert [tune.name for tune in own.tunes()] == ["my-star"]
        assert {asset.asset_type for asset in own.assets()} == {"file"}


def test_the_readmes_python_and_curl_run_as_they_stand(client: Client, key: str, tmp_path: Path) -> None:
    (tmp_path / "client").symlink_to(PROJECT / "client")
    [python] = _blocks(README, "python")
    [_, _, curl] = _blocks(README, "sh")
    assert "steps=200" in python
    (tmp_path / "tune.py").write_text(python.replace("steps=200", "steps=4"))
    env = {**os.environ, "NO_PROXY": "127.0.0.1", "TUNESMITH_URL": client.url, "OCTOAI_TOKEN": key}
    run = partial(subprocess.run, check=False, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=280)
    tuned = run([sys.executable, "tune.py"])
    asked = run(["bash", "-c", "set -euo pipefail\n" + curl])

    assert tuned.returncode == 0, tuned.stdout + tuned.stderr
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert "my-star" in asked.stdout
    for image in ("star.jpg", "night.jpg"):
        assert (tmp_path / image).read_bytes().startswith(b"\xff\xd8\xff")


def test_the_lines_to_change_are_those_that_the_drivers_have() -> None:
    drivers = "\n".join(path.read_text() for path in DRIVERS.iterdir() if path.is_file())
    shown = [re.sub(r"\s+#.*", "", line).strip() for block in _blocks(MIGRATING, "python", "js") for line in block.splitlines()]
    written = {line.strip() for line in drivers.splitlines()}

    assert len(shown) >= 8
    assert [line for line in shown if line not in written] == []


def test_every_sdk_of_the_migration_page_is_driven() -> None:
    headings = re.findall(r"^### (@?octoai\S*)", MIGRATING, re.MULTILINE)

    assert headings == ["octoai-sdk", "octoai", "@octoai/client", "@octoai/sdk"]
