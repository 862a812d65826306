"""The `octoai` command takes the guide's lines."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from deploy.local.paths import StackPaths
from tunesmith import demo
from tunesmith.client import Client

pytestmark = pytest.mark.timeout(300)
Run = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def octoai(client: Client, stack: StackPaths, tmp_path: Path) -> Run:
    """Return a function that runs a line of the guide in a new home, after `octoai login`."""
    # As in a user's shell after the login: neither address nor key in the environment.
    env = {name: value for name, value in os.environ.items() if name not in {"TUNESMITH_URL", "OCTOAI_TOKEN"}}
    env |= {"HOME": str(tmp_path), "COLUMNS": "80"}

    def run(line: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tunesmith_octoai_cli", *line.split()[1:]]
        options = {"env": env, "cwd": demo.SAMPLES, "input": typed, "timeout": 120}
        return subprocess.run(command, check=False, capture_output=True, text=True, **options)

    key = (stack.secrets / "api_key").read_text()
    # The prompt for a key hides what is typed, which needs a terminal; the option is for scripts.
    assert run(f"octoai login --token {key}", f"{client.url}\n").returncode == 0
    return run


def test_login_keeps_server_and_key_readable_by_the_user_alone(
    octoai: Run, client: Client, stack: StackPaths, tmp_path: Path
) -> None:
    kept = tmp_path / ".octoai" / "config.yaml"

    assert yaml.safe_load(kept.read_text()) == {"endpoint": client.url, "token": (stack.secrets / "api_key").read_text()}
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_login_keeps_no_key_that_the_server_refuses(octoai: Run, client: Client, tmp_path: Path) -> None:
    before = (tmp_path / ".octoai" / "config.yaml").read_bytes()
    refused = octoai(f"octoai login --endpoint {client.url} --token not-a-key")

    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert (tmp_path / ".octoai" / "config.yaml").read_bytes() == before


def test_the_guides_line_uploads_an_image_that_can_be_listed_got_and_deleted(octoai: Run, client: Client) -> None:
    name = f"command-{len(client.assets())}"
    line = f"octoai asset create --upload-from-file star-1.png --name {name} --type file --description a-star --transfer-api sts"
    made = octoai(line)

    assert made.returncode == 0, made.stderr
    asset = json.loads(made.stdout)
    assert (asset["name"], asset["asset_type"], asset["description"]) == (name, "file", "a-star")
    assert (client.asset(name).id, client.asset(name).size_bytes > 0) == (asset["id"], True)
    assert asset["id"] in octoai(f"octoai asset list --name {name} --type file").stdout
    assert json.loads(octoai(f"octoai asset get --name {name}").stdout)["id"] == asset["id"]
    assert octoai(f"octoai asset delete --id {asset['id']}").returncode == 0
    assert octoai(f"octoai asset get {name}").returncode == 1


def test_a_lora_needs_its_engine_and_carries_its_trigger_word(octoai: Run, client: Client, tmp_path: Path) -> None:
    name = f"command-lora-{len(client.assets())}"
    lora = tmp_path / "lora.safetensors"
    lora.write_bytes(b"not a LoRA, which only intake can tell")
    line = (
        f"octoai asset create --upload-from-file {lora} --name {name} --type lora --format safetensors --data-type fp16 -w sks1"
    )

    assert "--engine" in octoai(line).stderr
    asset = json.loads(octoai(f"{line} --engine image/stable-diffusion-v1-5").stdout)
    assert asset["data"]["trigger_words"] == ["sks1"]
    assert asset["data"]["engine"] == "image/stable-diffusion-v1-5"


def test_without_a_login_it_says_what_to_do(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "tunesmith_octoai_cli", "asset", "list"]
    run = subprocess.run(command, check=False, env=env, capture_output=True, text=True, timeout=60)

    assert (run.returncode, run.stderr) == (
        1,
        "error: no server is known: run `octoai login`, or set TUNESMITH_URL and OCTOAI_TOKEN\n",
    )
