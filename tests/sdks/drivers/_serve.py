"""The loop of the Python drivers: each line in is a verb as JSON, each line out what the SDK returned or raised.

It runs in the environment of an SDK, with nothing else installed.
"""

import enum
import json
import logging
import os
import sys
import time
from datetime import date


def serve(verbs, version):
    """Answer verbs until the input ends. `verbs` maps names to functions; the first line out lists them."""
    out, sys.stdout = sys.stdout, sys.stderr
    _note_answers(os.environ["ANSWERS"])

    def send(message):
        print(json.dumps(message), file=out, flush=True)

    send({"version": version, "offers": sorted(verbs)})
    for line in sys.stdin:
        call = json.loads(line)
        try:
            send({"value": plain(verbs[call["verb"]](**call["args"]))})
        except Exception as error:
            kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
            status = getattr(error, "status_code", None) or getattr(error, "status", None)
            send({"error": {"kinds": kinds, "status": status, "text": str(error)}})


_STATUS_IN = {"httpx": 3, "urllib3.connectionpool": 6}
"""The position of the status among the arguments of the line that each HTTP library logs of an answer."""


def _note_answers(path):
    """Append the time and status of each answer to a file, from the HTTP library's log: an SDK does not report its retries."""

    class Note(logging.Handler):
        def emit(self, record):
            if record.msg.startswith(("HTTP Request:", "%s://%s:%s")):
                with open(path, "a") as file:
                    print(time.monotonic(), record.args[_STATUS_IN[record.name]], file=file)

    for name in _STATUS_IN:
        logging.getLogger(name).setLevel(logging.DEBUG)
        logging.getLogger(name).addHandler(Note())
        logging.getLogger(name).propagate = False


def plain(value):
    """Return an SDK's own object as JSON's types."""
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    for name in ("to_dict", "dict"):
        if hasattr(value, name):
            return plain(getattr(value, name)())
    return plain(vars(value))
