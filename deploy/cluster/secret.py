"""One Secret of the cluster, by the Kubernetes API."""

import base64
import json
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext

from shared import tls

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class ClusterSecret:
    """A Secret that exists, at this URL, for a service account with this token."""

    url: str
    token: str
    context: SSLContext

    @classmethod
    def of_pod(cls, name: str) -> "ClusterSecret":
        """Return the Secret of this name in the pod's namespace."""
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        namespace = (_ACCOUNT / "namespace").read_text()
        url = f"https://{address}/api/v1/namespaces/{namespace}/secrets/{name}"
        return cls(url, (_ACCOUNT / "token").read_text(), tls.verified(_ACCOUNT / "ca.crt"))

    def get(self, field: str) -> str | None:
        """Return a field's text; None if the Secret has no such field."""
        data: dict[str, str] = self._call("GET").get("data") or {}
        return base64.b64decode(data[field]).decode() if field in data else None

    def set(self, field: str, text: str) -> None:
        """Set a field, and leave the others as they are."""
        self._call("PATCH", {"stringData": {field: text}})

    def _call(self, method: str, body: object = None) -> dict[str, dict[str, str]]:
        request = urllib.request.Request(  # noqa: S310 - the address is the cluster's own API server
            self.url,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/merge-patch+json"},
        )
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=self.context) as answer:  # noqa: S310 - as above
            return json.load(answer)
