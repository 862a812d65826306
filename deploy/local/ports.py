"""Free ports for the parts of a stack. They stay the same from start to start, so that addresses in clients stay valid."""

import json
import random
import socket
from collections.abc import Sequence
from pathlib import Path

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8080
ORIGIN = "origin"
_RANGE = range(20000, 32000)
"""Below the range of Linux's outgoing connections (32768 and up), which could take a port while its process restarts."""


def is_free(port: int) -> bool:
    """Return whether a program can listen on the loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def is_open(port: int) -> bool:
    """Return whether a program listens on the loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((LOOPBACK, port)) == 0


def choose(path: Path) -> int:
    """Return a port for a stack's origin: the first free one of its last port, the default port and random ones."""
    known: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    candidates = (known.get(ORIGIN, DEFAULT_PORT), DEFAULT_PORT, *random.sample(_RANGE, len(_RANGE)))
    return next(port for port in candidates if is_free(port))


def allot(path: Path, names: Sequence[str], origin: int) -> dict[str, int]:
    """Return a port for each name: its last one if that is free, else a random one. Writes all of them to `path`."""
    known: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    drawn = iter(random.sample(_RANGE, len(_RANGE)))
    ports = {ORIGIN: origin}
    for name in names:
        port = known.get(name, 0)
        while port not in _RANGE or port in ports.values() or not is_free(port):
            port = next(drawn)
        ports[name] = port
    path.write_text(json.dumps(ports, indent=1))
    return ports
