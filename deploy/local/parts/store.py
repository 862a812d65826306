"""The S3 store: SeaweedFS as one process on loopback, with our own access key."""

import asyncio
import base64
import contextlib
import json
import shutil
import signal
import sys
from pathlib import Path

from deploy.local.ports import LOOPBACK
from deploy.local.process import Process, Ready
from deploy.local.secrets import write_private
from shared.blobs.store import Blobs
from shared.errors import NotFoundError, UnavailableError

ACCESS_KEY = "tunesmith"
PORTS = (
    "store-s3",
    "store-s3-grpc",
    "store-master",
    "store-master-grpc",
    "store-volume",
    "store-volume-grpc",
    "store-filer",
    "store-filer-grpc",
)
_REGION = "us-east-1"
_PROBE_BUCKET = "readiness"
_PROBE_KEY = "probe"
_PROBE_TIMEOUT_S = 5.0
_MEMORY_LIMIT = "512MiB"
_VOLUME_SIZE_MB = 128
_LOGGING = ("-alsologtostderr=false", "-stderrthreshold=ERROR", "-log_max_size_mb=10", "-log_max_files=1")


def process(folder: Path, config: Path, ports: dict[str, int], secret_key: str, session_key: str) -> Process:
    """Return the store's process. Its own log has every heartbeat, so it goes to a bounded file beside the data.

    `session_key` signs the sessions of clients that have credentials for single objects.
    """
    logs = folder.with_name(f"{folder.name}-log")
    for path in (folder, logs):
        path.mkdir(mode=0o700, exist_ok=True)
    identity = {
        "name": "tunesmith",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    write_private(config, json.dumps({"identities": [identity]}))
    signing_key = base64.b64encode(session_key.encode()).decode()
    sessions = {"issuer": "tunesmith", "signingKey": signing_key, "tokenDuration": "1h", "maxSessionLength": "12h"}
    iam_config = config.with_name(f"{config.stem}-iam.json")
    write_private(iam_config, json.dumps({"sts": sessions, "policy": {"defaultEffect": "Deny", "storeType": "memory"}}))
    flags = {
        "dir": folder,
        "ip": LOOPBACK,
        "ip.bind": LOOPBACK,
        # Without this, every user of the machine can read and write objects through the filer's port.
        "disableHttp": "true",
        "master.telemetry": "false",
        "master.port": ports["store-master"],
        "master.port.grpc": ports["store-master-grpc"],
        # A single master that restarts elects itself only after this time.
        "master.electionTimeout": "1s",
        "master.volumeSizeLimitMB": _VOLUME_SIZE_MB,
        "volume.port": ports["store-volume"],
        "volume.port.grpc": ports["store-volume-grpc"],
        "volume.max": 0,
        "filer": "true",
        "filer.port": ports["store-filer"],
        "filer.port.grpc": ports["store-filer-grpc"],
        "s3": "true",
        "s3.port": ports["store-s3"],
        "s3.port.grpc": ports["store-s3-grpc"],
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": config,
        # AssumeRole works only together with the IAM API. That API is read-only and asks for our key, and the edge passes on
        # the bucket's path alone.
        "s3.iam": "true",
        "s3.iam.readOnly": "true",
        "s3.iam.config": iam_config,
    }
    binary = shutil.which("weed", path=str(Path(sys.executable).parent)) or "weed"
    return Process(
        name="store",
        argv=(binary, *_LOGGING, f"-logdir={logs}", "server", *(f"-{name}={value}" for name, value in flags.items())),
        # A bucket starts with one volume file instead of seven, to save a laptop's disk.
        env={"GOMEMLIMIT": _MEMORY_LIMIT, "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"},
        ready=_keeps_objects(ports["store-s3"], secret_key),
        # A clean stop takes 15 s, and acknowledged writes survive a kill: test_local_stack.py checks that.
        stop_signal=signal.SIGKILL,
        ports=tuple(ports[name] for name in PORTS),
    )


def _keeps_objects(port: int, secret_key: str) -> Ready:
    """Return a check that reads and writes an object, in a bucket of its own.

    The port opens some seconds before the master knows its volumes, and until then every read and write fails.
    """
    address = f"http://{LOOPBACK}:{port}"
    blobs = Blobs(address, address, access_key=ACCESS_KEY, secret_key=secret_key, bucket=_PROBE_BUCKET, region=_REGION)

    async def check() -> bool:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                await blobs.ensure_bucket()
                with contextlib.suppress(NotFoundError):
                    await blobs.get_bytes(_PROBE_KEY, max_bytes=1)
                await blobs.put_bytes(_PROBE_KEY, b"1")
        except (UnavailableError, TimeoutError):
            return False
        return True

    return check
