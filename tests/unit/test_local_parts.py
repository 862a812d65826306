"""The parts of a local stack, without starting it."""

import re
import socket
from pathlib import Path

import pytest

from deploy.local import ports, secrets, stack
from deploy.local.logs import LogSink
from deploy.local.parts import kafka
from deploy.local.paths import PROJECT, StackPaths
from deploy.local.stack import plan

EXTERNAL = {"postgres", "kafka", "store"}


@pytest.fixture(autouse=True)
def _no_external_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*stack.EXTERNAL, *stack.CREDENTIALS):
        monkeypatch.delenv(name, raising=False)


def _listening() -> socket.socket:
    """Take a port of the range that stacks use."""
    for port in range(31999, 20000, -1):
        taken = socket.socket()
        try:
            taken.bind((ports.LOOPBACK, port))
        except OSError:
            taken.close()
            continue
        taken.listen()
        return taken
    pytest.fail("every port is taken")


def test_ports_are_remembered_and_replaced_when_taken(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = ports.allot(file, ["a", "b"], 8080)
    assert ports.allot(file, ["a", "b"], 8080) == first
    assert len(set(first.values())) == 3

    with _listening() as taken:
        file.write_text(f'{{"a": {taken.getsockname()[1]}, "b": {first["b"]}}}')
        second = ports.allot(file, ["a", "b"], 8080)
        assert second["a"] != taken.getsockname()[1]
    assert second["b"] == first["b"]


def test_the_origin_keeps_its_port(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    ports.allot(file, [], 29999)
    assert ports.choose(file) == 29999


def test_the_origin_takes_another_port_when_its_own_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    with _listening() as taken:
        ports.allot(file, [], taken.getsockname()[1])
        chosen = ports.choose(file)
        assert chosen != taken.getsockname()[1]
    assert ports.is_free(chosen)


def test_a_secret_is_created_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    first = secrets.get_or_create(tmp_path, "password")
    assert secrets.get_or_create(tmp_path, "password") == first
    assert len(first) >= 43
    assert (tmp_path / "password").stat().st_mode & 0o777 == 0o600


def test_a_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.local.logs._MAX_BYTES", 100)
    sink = LogSink(tmp_path)
    for number in range(50):
        sink.write("kafka", f"line {number}")
    sink.close()
    files = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert set(files) == {"kafka.log", "kafka.log.1"}
    assert sum(map(len, files.values())) < 250
    assert (files["kafka.log.1"] + files["kafka.log"]).endswith("line 49\n")


def test_the_services_start_after_the_job_and_the_job_after_the_external_parts(tmp_path: Path) -> None:
    processes = {process.name: process for process in plan(StackPaths(tmp_path), 8080).processes}
    assert set(processes) == {*EXTERNAL, "bootstrap", "edge", *stack.SERVICES}
    assert set(processes["bootstrap"].needs) == EXTERNAL
    assert processes["bootstrap"].once
    assert {name for name in stack.SERVICES if processes[name].needs == ()} == {"trainer", "inference-worker"}


@pytest.mark.parametrize(
    ("variable", "value", "part"),
    [
        ("TUNESMITH_DATABASE_URL", "postgresql+asyncpg://u:p@db:5432/t", "postgres"),
        ("TUNESMITH_KAFKA_BOOTSTRAP_SERVERS", "broker:9092", "kafka"),
        ("TUNESMITH_S3_ENDPOINT", "http://store:9000", "store"),
    ],
)
def test_a_part_with_an_external_address_is_used_and_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, part: str
) -> None:
    monkeypatch.setenv(variable, value)
    laid_out = plan(StackPaths(tmp_path), 8080)
    assert {process.name for process in laid_out.processes} & EXTERNAL == EXTERNAL - {part}
    assert laid_out.env[variable] == value
    upload = next(process for process in laid_out.processes if process.name == "upload")
    assert upload.env[variable] == value


def test_credentials_of_an_external_store_are_not_used_for_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_S3_SECRET_KEY", "someone else's")
    assert plan(StackPaths(tmp_path), 8080).env["TUNESMITH_S3_SECRET_KEY"] != "someone else's"
    monkeypatch.setenv("TUNESMITH_S3_ENDPOINT", "http://store:9000")
    assert plan(StackPaths(tmp_path), 8080).env["TUNESMITH_S3_SECRET_KEY"] == "someone else's"


def test_the_class_path_is_exactly_the_listed_jars(tmp_path: Path) -> None:
    listed = kafka.jar_faults(tmp_path)
    assert len(listed) > 20, "an empty folder misses all of them"
    (tmp_path / listed[0]).write_bytes(b"changed")
    (tmp_path / "foreign.jar").touch()
    faults = kafka.jar_faults(tmp_path)
    assert faults[0] == listed[0]
    assert "foreign.jar" in faults


def test_the_locks_are_names_versions_and_hashes_alone() -> None:
    locks = sorted((PROJECT / "locks").glob("*.txt"))
    assert {path.stem for path in locks} == {"all", "uv", "heif", "safety", *stack.SERVICES}
    line = re.compile(r"[a-z0-9._-]+==[^ ]+( ; .+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    for path in locks:
        wrong = [text for text in path.read_text().splitlines() if not line.fullmatch(text)]
        assert wrong == [], path.name


def test_each_lock_has_the_versions_of_the_whole_lock() -> None:
    whole = set(re.findall(r"^[a-z0-9._-]+==[^ ]+", (PROJECT / "locks" / "all.txt").read_text(), re.MULTILINE))
    for name in (*stack.SERVICES, "heif", "safety"):
        own = set(re.findall(r"^[a-z0-9._-]+==[^ ]+", (PROJECT / "locks" / f"{name}.txt").read_text(), re.MULTILINE))
        assert own <= whole, name
