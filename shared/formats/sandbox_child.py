"""The child of `shared.formats.sandbox`: `python -m shared.formats.sandbox_child FD LIMITS READER MODULES`.

It imports what the reader needs, confines itself, says that it is ready, and then answers requests until the socket is
closed. A request is a line of JSON with the reader's arguments, and carries the open source and, for some, the open target.
"""

import errno
import json
import os
import socket
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

from pydantic import BaseModel

from shared.errors import InvalidError
from shared.formats.confinement import Limits, confine, grant_cpu

_MOST_FILES = 2
_MAX_REASON = 2000


def main(number: str, limits_json: str, reader: str, modules: str) -> None:
    """Serve requests until the other end of the socket is closed."""
    channel = socket.socket(fileno=int(number))
    limits = Limits(**json.loads(limits_json))
    warnings.simplefilter("ignore")
    try:
        for module in modules.split():
            import_module(module)
        module, _, name = reader.partition(":")
        function: Callable[..., BaseModel] = getattr(import_module(module), name)
        confine(limits)
    except Exception as error:  # noqa: BLE001 - whatever keeps it from starting is no fault of a file
        _say(channel, {"failed": _described(error)})
        return
    _say(channel, {"ready": True})
    while True:
        request, numbers, _, _ = socket.recv_fds(channel, 1 << 16, _MOST_FILES)
        if not request:
            return
        grant_cpu(limits.cpu_s)
        files = [os.fdopen(number, mode) for number, mode in zip(numbers, ("rb", "wb"), strict=False)]
        _say(channel, _answer(function, files, json.loads(request)))
        for file in files:
            file.close()


def _answer(function: Callable[..., BaseModel], files: list[Any], arguments: list[Any]) -> dict[str, Any]:
    try:
        answer = {"read": function(*files, *arguments).model_dump(mode="json")}
        for file in files[1:]:
            file.flush()
    except InvalidError as error:
        # A database takes no half of a surrogate pair.
        return {"refused": error.message[:_MAX_REASON].encode(errors="backslashreplace").decode()}
    except MemoryError:
        return {"exhausted": "memory"}
    except RecursionError:
        return {"refused": "the file nests its contents too deeply; save it again with the program that made it"}
    except OSError as error:
        if error.errno == errno.EFBIG:
            return {"exhausted": "output"}
        return {"os_error": [error.errno or errno.EIO, str(error.strerror or error)[:_MAX_REASON]]}
    except Exception as error:  # noqa: BLE001 - the parent reports a bug of a reader
        return {"failed": _described(error)}
    return answer


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:_MAX_REASON]


def _say(channel: socket.socket, answer: dict[str, Any]) -> None:
    channel.sendall(json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
    # Nothing is left to be cleaned up.
    os._exit(0)
