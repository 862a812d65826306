"""The Helm chart: what it makes of the example values, what it refuses, and that the API server would take all of it."""

import gzip
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from services.console.settings import ConsoleSettings
from services.inference.settings import InferenceSettings
from services.inference.worker.settings import WorkerSettings
from services.scheduler.settings import SchedulerSettings
from services.trainer.settings import TrainerSettings
from services.upload.settings import UploadSettings
from shared.settings import ServiceSettings
from tests.support.helm import CHART, ROOT, example, helm

SCHEMAS = ROOT / "tests" / "charts" / "schemas.json.gz"
EXAMPLES = sorted(path.stem for path in (CHART / "examples").glob("*.yaml"))
SETTINGS = {
    "upload": UploadSettings,
    "scheduler": SchedulerSettings,
    "inference": InferenceSettings,
    "console": ConsoleSettings,
    "trainer": TrainerSettings,
    "inference-worker": WorkerSettings,
    "migrate": ServiceSettings,
    "bootstrap": ServiceSettings,
}
Object = dict[str, Any]


@cache
def rendered(name: str) -> list[Object]:
    found = helm("template", "release", str(CHART), "--namespace", "tunes", "--values", str(example(name)))
    return [made for made in yaml.safe_load_all(found.stdout) if made]


@cache
def _schemas() -> Object:
    return json.loads(gzip.decompress(SCHEMAS.read_bytes()))


def faults(made: Object) -> list[str]:
    kind = f"{made['apiVersion']}/{made['kind']}"
    if kind not in _schemas()["kinds"]:
        return [f"{kind} is not a kind that a cluster with KEDA and the Prometheus operator has"]
    schema = {**_schemas()["kinds"][kind], "components": _schemas()["components"]}
    found = jsonschema_rs.validator_for(schema).iter_errors(made)
    return [f"{kind} {made['metadata']['name']}: {error.message} at {error.instance_path}" for error in found]


def pods(name: str) -> dict[str, Object]:
    """The pods of the rendered objects, by their component."""
    found: dict[str, Object] = {}
    for made in rendered(name):
        spec = made.get("spec", {})
        template = (
            spec.get("template") or spec.get("jobTargetRef", {}).get("template") or (made if made["kind"] == "Pod" else None)
        )
        if template:
            found[template["metadata"]["labels"]["app.kubernetes.io/component"]] = template["spec"]
    return found


def env(pod: Object) -> dict[str, Object]:
    return {entry["name"]: entry for container in pod["containers"] for entry in container.get("env", [])}


@pytest.mark.parametrize("name", EXAMPLES)
def test_helm_lint_finds_nothing(name: str) -> None:
    found = helm("lint", str(CHART), "--strict", "--values", str(example(name)))

    assert "0 chart(s) failed" in found.stdout


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_api_server_would_take_every_object(name: str) -> None:
    assert [fault for made in rendered(name) for fault in faults(made)] == []


def test_an_unknown_kind_an_unknown_field_and_a_wrong_type_are_faults() -> None:
    service = next(made for made in rendered("minimal") if made["kind"] == "Service")

    assert faults({**service, "kind": "Servise"})
    assert faults({**service, "spec": {**service["spec"], "portz": []}})
    assert faults({**service, "spec": {**service["spec"], "ports": [{"port": "many"}]}})


@pytest.mark.parametrize("name", EXAMPLES)
def test_names_are_unique_and_short_enough(name: str) -> None:
    names = [(made["kind"], made["metadata"]["name"]) for made in rendered(name)]

    assert len(names) == len(set(names))
    # KEDA and Job append to a name, and a label has 63 characters at most.
    assert max(len(made) for _, made in names) <= 52


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("publicUrl=", "publicUrl is empty: set the origin that clients use"),
        ("database.host=", "database.host is empty: name your PostgreSQL"),
        ("database.existingSecret=", 'database.existingSecret is empty: name a Secret whose key "password" has the password'),
        ("kafka.bootstrapServers=", "kafka.bootstrapServers is empty: name your Kafka"),
        ("kafka.sasl.existingSecret=", "kafka.sasl.existingSecret is empty: name a Secret"),
        ("s3.endpoint=", "s3.endpoint is empty: name your S3 store"),
        ("s3.existingSecret=", "s3.existingSecret is empty: name a Secret"),
        ("trainer.drainSeconds=55", "trainer.terminationGracePeriodSeconds is 60, which is less than"),
    ],
)
def test_what_is_missing_is_named_with_what_to_do(missing: str, message: str) -> None:
    found = helm("template", "release", str(CHART), "--values", str(example("full")), "--set", missing, check=False)

    assert found.returncode != 0
    assert message in found.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        "publicUrl=tunes.example.org",
        "publicUrl=https://tunes.example.org/path",
        "database.tls=yes",
        "kafka.bootstrapServers=kafka",
        "kafka.sasl.mechanism=GSSAPI",
        "upload.replicas=0",
        "upload.replcas=2",
        "image.digests.upload=sha256:1",
        "image.digests.uplaod=",
        "trainer.mode=job",
        "trainer.max=many",
        "worker.cache.fileBytes=20Gi",
        "ingress.enable=true",
    ],
)
def test_the_schema_refuses_a_wrong_value(wrong: str) -> None:
    found = helm("template", "release", str(CHART), "--values", str(example("full")), "--set", wrong, check=False)

    assert found.returncode != 0
    assert "values don't meet the specifications of the schema" in found.stderr


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_pod_runs_as_root_or_keeps_a_capability_that_it_does_not_need(name: str) -> None:
    bundled = {"postgres", "kafka", "minio"}
    for part, pod in pods(name).items():
        security = pod["securityContext"]
        assert security["runAsNonRoot"], part
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, part
        assert pod["enableServiceLinks"] is False, part
        assert pod.get("automountServiceAccountToken") is (part == "bootstrap"), part
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, part
            assert own["capabilities"]["drop"] == ["ALL"], part
            assert own["capabilities"].get("add", []) == (["NET_BIND_SERVICE"] if part == "edge" else []), part
            assert own.get("readOnlyRootFilesystem", False) is (part not in bundled), part
            assert container["resources"]["limits"]["memory"], part


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_variable_is_a_setting_of_its_process(name: str) -> None:
    unknown = {
        f"{part}: {variable}"
        for part, pod in pods(name).items()
        if part in SETTINGS
        for variable in env(pod)
        if variable.startswith("TUNESMITH_")
        if variable.removeprefix("TUNESMITH_").lower() not in SETTINGS[part].model_fields
    }

    assert unknown == set()


@pytest.mark.parametrize("name", EXAMPLES)
def test_settings_without_a_default_are_set(name: str) -> None:
    missing = {
        f"{part}: {field}"
        for part, pod in pods(name).items()
        if part in SETTINGS
        for field, about in SETTINGS[part].model_fields.items()
        if about.is_required() and f"TUNESMITH_{field.upper()}" not in env(pod)
    }

    assert missing == set()


@pytest.mark.parametrize("name", EXAMPLES)
def test_passwords_come_from_secrets_and_the_console_gets_none(name: str) -> None:
    secret = re.compile(r"PASSWORD|SECRET_KEY|API_KEY")
    for part, pod in pods(name).items():
        for variable, entry in env(pod).items():
            assert "value" not in entry or not secret.search(variable), (part, variable)
    console = env(pods(name)["console"])

    assert not [variable for variable, entry in console.items() if "valueFrom" in entry]
    assert not {variable for variable in console if re.search("DATABASE|KAFKA|S3", variable)}


def test_tls_and_sign_in_reach_every_process_that_uses_the_backends() -> None:
    for part in SETTINGS.keys() - {"console"}:
        given = {name: entry.get("value") for name, entry in env(pods("full")[part]).items()}
        mounted = [mount["mountPath"] for mount in pods("full")[part]["containers"][0]["volumeMounts"]]
        assert given["TUNESMITH_DATABASE_TLS"] == "verify-full", part
        assert given["TUNESMITH_KAFKA_TLS"] == "true", part
        assert given["TUNESMITH_KAFKA_SASL_MECHANISM"] == "SCRAM-SHA-512", part
        assert given["TUNESMITH_S3_ENDPOINT"].startswith("https://"), part
        assert {given[f"TUNESMITH_{name}_CA_FILE"] for name in ("DATABASE", "KAFKA", "S3")} == {
            f"/etc/tunesmith/{name}-ca.crt" for name in ("database", "kafka", "s3")
        }
        assert "/etc/tunesmith" in mounted, part


@pytest.mark.parametrize(
    ("ca", "mode"), [("tunesmith-ca", "require"), ("", "verify-full")], ids=["a CA that KEDA cannot have", "a public CA"]
)
def test_keda_reaches_the_database_by_tls_too(ca: str, mode: str) -> None:
    given = ("--values", str(example("full")), "--set", f"database.caSecret.name={ca}")
    made = yaml.safe_load_all(helm("template", "release", str(CHART), *given).stdout)
    triggers = [trigger for found in made if found for trigger in found.get("spec", {}).get("triggers", ())]

    assert [trigger["metadata"]["sslmode"] for trigger in triggers] == [mode] * 3


def test_a_gpu_is_asked_for_unless_the_values_say_none() -> None:
    for part in ("trainer", "inference-worker"):
        assert pods("minimal")[part]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert "nvidia.com/gpu" not in pods("bundled")[part]["containers"][0]["resources"]["limits"]


def test_services_of_the_edge_and_the_console_exist() -> None:
    services = {made["metadata"]["name"] for made in rendered("minimal") if made["kind"] == "Service"}
    called = {
        match
        for part in ("edge", "console")
        for entry in env(pods("minimal")[part]).values()
        for match in re.findall(r"(release-tunesmith-[a-z-]+):8000", entry.get("value", ""))
    }

    assert len(called) >= 5
    assert called <= services


def test_the_chart_has_the_edge_and_the_version_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    config = next(made for made in rendered("minimal") if made["kind"] == "ConfigMap")
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)

    assert version is not None
    assert chart["appVersion"] == version[1]
    assert config["data"]["Caddyfile"].strip() == (ROOT / "deploy" / "edge" / "Caddyfile").read_text().strip()
    assert Path(CHART / "files" / "Caddyfile").is_symlink(), "a copy would fall behind"
