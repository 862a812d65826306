"""The loop of the Python drivers: a verb a line comes in as JSON, what the SDK gave or raised goes out.

Runs in the environment of an SDK, with nothing else installed.
"""

import enum
import json
import logging
import os
import sys
import time
from datetime import date


def serve(verbs, version):
    """Answer verbs until the input ends. `verbs` maps names to functions; the first line out says what is offered."""
    out, sys.stdout = sys.stdout, sys.stderr
    _note_answers(os.environ["ANSWERS"])

    def say(message):
        print(json.dumps(message), file=out, flush=True)

    say({"version": version, "offers": sorted(verbs)})
    for line in sys.stdin:
        call = json.loads(line)
        try:
            say({"value": plain(verbs[call["verb"]](**call["args"]))})
        except Exception as error:
            kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
            status = getattr(error, "status_code", None) or getattr(error, "status", None)
            say({"error": {"kinds": kinds, "status": status, "text": str(error)}})


_STATUS_IN = {"httpx": 3, "urllib3.connectionpool": 6}
"""Which word of the line that an HTTP library logs of an answer is its status."""


def _note_answers(path):
    """Write down when each answer came and its status, as the HTTP library says: an SDK that tries again tells nobody."""

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
    """Turn an SDK's own object into JSON's types."""
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
