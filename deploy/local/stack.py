"""The processes of a local stack, and the settings that connect them."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.local import ports
from deploy.local.parts import edge, kafka, postgres, store
from deploy.local.paths import StackPaths
from deploy.local.process import Process, http_ok
from deploy.local.secrets import get_or_create

BUCKET = "tunesmith"
SERVICES = ("upload", "scheduler", "inference", "console", "trainer", "inference-worker")
_MODULES = {name: f"services.{name}" for name in SERVICES} | {"inference-worker": "services.inference.worker"}
_WORKERS = ("trainer", "inference-worker")
EXTERNAL = ("TUNESMITH_DATABASE_URL", "TUNESMITH_KAFKA_BOOTSTRAP_SERVERS", "TUNESMITH_S3_ENDPOINT")
CREDENTIALS = ("TUNESMITH_S3_ACCESS_KEY", "TUNESMITH_S3_SECRET_KEY")


@dataclass(frozen=True)
class Plan:
    """Everything that a supervisor runs for one stack."""

    url: str
    env: dict[str, str]
    """The environment of every service; the console gets it without addresses and credentials of the backends."""
    processes: tuple[Process, ...]


def plan(paths: StackPaths, port: int, *, only_external: bool = False) -> Plan:
    """Return the plan of a stack whose origin is on `port`. A part whose address is in the environment is used and not started.

    With `only_external` the plan holds PostgreSQL, Kafka and the store alone, for tests.
    """
    paths.create()
    allotted = ports.allot(paths.ports, [*postgres.PORTS, *kafka.PORTS, *store.PORTS, *SERVICES], port)
    password = get_or_create(paths.secrets, "postgres_password")
    secret_key = get_or_create(paths.secrets, "s3_secret_key")
    session_key = get_or_create(paths.secrets, "s3_session_key")
    url = f"http://{ports.LOOPBACK}:{port}"
    own = {
        "TUNESMITH_DATABASE_URL": postgres.url(allotted["postgres"], password),
        "TUNESMITH_KAFKA_BOOTSTRAP_SERVERS": f"{ports.LOOPBACK}:{allotted['kafka']}",
        "TUNESMITH_S3_ENDPOINT": f"http://{ports.LOOPBACK}:{allotted['store-s3']}",
    }
    given = {name: os.environ[name] for name in EXTERNAL if os.environ.get(name)}
    if "TUNESMITH_S3_ENDPOINT" in given:
        given |= {name: os.environ[name] for name in CREDENTIALS if os.environ.get(name)}
    env = own | {
        "TUNESMITH_S3_ACCESS_KEY": store.ACCESS_KEY,
        "TUNESMITH_S3_SECRET_KEY": secret_key,
        "TUNESMITH_S3_BUCKET": os.environ.get("TUNESMITH_S3_BUCKET", BUCKET),
        "TUNESMITH_PUBLIC_URL": url,
        "TUNESMITH_HTTP_HOST": ports.LOOPBACK,
        "TUNESMITH_LOG_FORMAT": os.environ.get("TUNESMITH_LOG_FORMAT", "console"),
        "PYTHONUNBUFFERED": "1",
        **given,
    }
    external = [
        process
        for name, process in zip(
            EXTERNAL,
            (
                postgres.process(paths.postgres, allotted["postgres"], password),
                kafka.process(paths.kafka, allotted),
                store.process(paths.store, paths.secrets / "s3.json", allotted, secret_key, session_key),
            ),
            strict=True,
        )
        if name not in given
    ]
    if only_external:
        return Plan(url, env, tuple(external))
    endpoint = env["TUNESMITH_S3_ENDPOINT"].removeprefix("http://")
    front = edge.process(paths.edge, port, bucket=env["TUNESMITH_S3_BUCKET"], store=endpoint, services=allotted)
    bootstrap = Process(
        name="bootstrap",
        argv=(sys.executable, "-m", "deploy.local.bootstrap", str(paths.data_dir)),
        env=env,
        needs=tuple(process.name for process in external),
        once=True,
    )
    services = (_service(name, env, allotted, paths.work) for name in SERVICES)
    return Plan(url, env, (*external, bootstrap, front, *services))


def _service(name: str, env: dict[str, str], allotted: dict[str, int], work: Path) -> Process:
    folder = work / name
    folder.mkdir(exist_ok=True)
    mine = env | {"TUNESMITH_HTTP_PORT": str(allotted[name]), "TUNESMITH_WORK_DIR": str(folder)}
    if name == "console":
        # The console uses no database, broker or store, so it gets no credentials of them.
        mine = {variable: value for variable, value in mine.items() if variable not in (*EXTERNAL, *CREDENTIALS)}
        addresses = {other: f"http://{ports.LOOPBACK}:{allotted[other]}" for other in SERVICES}
        mine |= {f"TUNESMITH_{other.upper().replace('-', '_')}_URL": address for other, address in addresses.items()}
    return Process(
        name=name,
        argv=(sys.executable, "-m", _MODULES[name]),
        env=mine,
        ready=http_ok(allotted[name], "/ready"),
        ports=(allotted[name],),
        # Workers import for 20 seconds before they use anything, so they start together with the backends.
        needs=() if name in _WORKERS else ("bootstrap",),
        wave=3,
    )
