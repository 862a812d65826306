"""The loop of the Python drivers: a verb a line comes in as JSON, what the SDK gave or raised goes out.

Runs in the environment of an SDK, with nothing else installed.
"""

import enum
import json
import sys
from datetime import date


def serve(verbs, version):
    """Answer verbs until the input ends. `verbs` maps names to functions; the first line out says what is offered."""
    out, sys.stdout = sys.stdout, sys.stderr

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
