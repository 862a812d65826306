"""The edge: Caddy, which makes the services and the store one origin."""

import shutil
import sys
from pathlib import Path

from deploy.local.paths import PROJECT
from deploy.local.ports import LOOPBACK
from deploy.local.process import Process, port_open

CADDYFILE = PROJECT / "deploy" / "edge" / "Caddyfile"
MAX_FILE_BYTES = 64 * 2**20
MAX_ADAPTER_BYTES = 2 * 2**30
MAX_CHECKPOINT_BYTES = 16 * 2**30


def process(folder: Path, port: int, *, bucket: str, store: str, services: dict[str, int]) -> Process:
    """Return the edge's process. `store` is `host:port`, `services` the ports of upload, scheduler, inference, console."""
    env = {name.upper(): f"{LOOPBACK}:{services[name]}" for name in ("upload", "scheduler", "inference", "console")}
    env |= {
        "EDGE_PORT": str(port),
        "EDGE_BIND": LOOPBACK,
        "S3_BUCKET": bucket,
        "STORE": store,
        "MAX_FILE_BYTES": str(MAX_FILE_BYTES),
        "MAX_ADAPTER_BYTES": str(MAX_ADAPTER_BYTES),
        "MAX_CHECKPOINT_BYTES": str(MAX_CHECKPOINT_BYTES),
        # Caddy keeps its state below these. Everything of a stack lies in its data folder.
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_DATA_HOME": str(folder / "data"),
    }
    binary = shutil.which("caddy", path=str(Path(sys.executable).parent)) or "caddy"
    return Process(
        name="edge",
        argv=(binary, "run", "--config", str(CADDYFILE), "--adapter", "caddyfile"),
        env=env,
        ready=port_open(port),
        ports=(port,),
        grace_s=5,
    )
