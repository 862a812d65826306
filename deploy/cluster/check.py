"""The check of `helm test`: the first key works through the edge, and every part that has a page or an API answers.

`python -m deploy.cluster.check EDGE_URL`, with the key in TUNESMITH_API_KEY.
"""

import json
import os
import sys
import urllib.request

_TIMEOUT_S = 20.0


def _get(url: str, key: str = "") -> bytes:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the operator names the address
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - as above
        return answer.read()


def check(edge: str, key: str) -> list[str]:
    """Call each API with the key, and return what was checked. Raises for the first that does not answer as it should."""
    checked: list[str] = []
    for path in ("/v1/assets", "/v1/tunes"):
        page: dict[str, object] = json.loads(_get(edge + path, key))
        checked.append(f"{path}: {sorted(page)}")
    parts: list[dict[str, object]] = json.loads(_get(edge + "/console/system"))["parts"]
    # Image workers and trainers may be scaled to zero.
    if bad := [part for part in parts if part["name"] in {"upload", "scheduler", "inference"} and not part["ready"]]:
        msg = f"these parts are not ready: {bad}"
        raise SystemExit(msg)
    checked.append(f"/console/system: {len(parts)} parts")
    return checked


if __name__ == "__main__":
    for line in check(sys.argv[1].rstrip("/"), os.environ["TUNESMITH_API_KEY"]):
        print(line)
