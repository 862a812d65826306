"""Free ports for the parts of a stack, kept from start to start so that addresses in logs and clients stay true."""

import json
import socket
from collections.abc import Sequence
from pathlib import Path

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8080


def is_free(port: int) -> bool:
    """Say whether the port can be listened on now, on loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def is_open(port: int) -> bool:
    """Say whether something listens on the port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((LOOPBACK, port)) == 0


def allot(path: Path, names: Sequence[str]) -> dict[str, int]:
    """Return a port for each name: the remembered one where it is still free, else a fresh one; remembers them."""
    known: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    held: list[socket.socket] = []
    ports: dict[str, int] = {}
    try:
        for name in names:
            port = known.get(name, 0)
            if not port or port in ports.values() or not is_free(port):
                # The sockets stay open until all are drawn, so that none is drawn twice.
                held.append(socket.socket())
                held[-1].bind((LOOPBACK, 0))
                port = held[-1].getsockname()[1]
            ports[name] = port
    finally:
        for sock in held:
            sock.close()
    path.write_text(json.dumps(ports, indent=1))
    return ports
