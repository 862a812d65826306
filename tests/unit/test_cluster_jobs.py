"""The jobs of a cluster: the Secret of the first key by the Kubernetes API, and the check of `helm test`."""

import base64
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError, URLError

import pytest

from deploy.cluster import check
from deploy.cluster.secret import ClusterSecret
from shared import tls
from tests.support.tls_front import make_certificate

TOKEN = "token-of-the-pod"


class Api(ThreadingHTTPServer):
    """A server of JSON documents by their path, which holds Secrets as the Kubernetes API does."""

    daemon_threads = True

    def __init__(self, documents: dict[str, Any], token: str) -> None:
        self.documents, self.token = documents, token
        self.types: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self) -> None:
        found = self.server.documents.get(self.path)
        if self.path.startswith("/console/") or self.headers["Authorization"] == f"Bearer {self.server.token}":
            self._answer(200 if found is not None else 404, found)
        else:
            self._answer(401, {})

    def do_PATCH(self) -> None:
        patch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.types.append(self.headers["Content-Type"])
        secret = self.server.documents[self.path]
        for name, text in patch["stringData"].items():
            secret.setdefault("data", {})[name] = base64.b64encode(text.encode()).decode()
        self._answer(200, secret)

    def _answer(self, status: int, document: Any) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        pass


@contextmanager
def serving(documents: dict[str, Any], token: str = TOKEN, pair: Path | None = None) -> Iterator[Api]:
    server = Api(documents, token)
    if pair:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


PATH = "/api/v1/namespaces/tunes/secrets/first-key"


def test_a_field_of_a_secret_is_set_and_read_and_the_others_stay(tmp_path: Path) -> None:
    ca, pair = make_certificate(tmp_path)
    other = base64.b64encode(b"kept").decode()
    with serving({PATH: {"data": {"other": other}}}, pair=pair) as api:
        secret = ClusterSecret(f"https://localhost:{api.server_port}{PATH}", TOKEN, tls.verified(ca))
        assert secret.get("api_key") is None

        secret.set("api_key", "tsk_é")

        assert secret.get("api_key") == "tsk_é"
        assert api.documents[PATH]["data"]["other"] == other
        assert api.types == ["application/merge-patch+json"]


def test_a_new_secret_has_no_data_at_all(tmp_path: Path) -> None:
    ca, pair = make_certificate(tmp_path)
    with serving({PATH: {"data": None}}, pair=pair) as api:
        assert ClusterSecret(f"https://localhost:{api.server_port}{PATH}", TOKEN, tls.verified(ca)).get("api_key") is None


def test_a_server_with_a_certificate_of_another_ca_gets_no_token(tmp_path: Path) -> None:
    _, pair = make_certificate(tmp_path)
    with serving({PATH: {}}, pair=pair) as api, pytest.raises(URLError, match="CERTIFICATE_VERIFY_FAILED"):
        ClusterSecret(f"https://localhost:{api.server_port}{PATH}", TOKEN, tls.verified(None)).get("api_key")


def test_the_secret_of_a_pod_is_in_its_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ca, _ = make_certificate(tmp_path)
    ca.rename(tmp_path / "ca.crt")
    (tmp_path / "namespace").write_text("tunes")
    (tmp_path / "token").write_text(TOKEN)
    monkeypatch.setattr("deploy.cluster.secret._ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    urls = []
    for host in ("10.96.0.1", "fd00::1"):
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        urls.append(ClusterSecret.of_pod("first-key").url)

    assert urls == [f"https://10.96.0.1:443{PATH}", f"https://[fd00::1]:443{PATH}"]


def _platform(**ready: bool) -> dict[str, Any]:
    parts = [{"name": name, "ready": ready.get(name, True)} for name in ("upload", "scheduler", "inference", "trainer")]
    return {"/v1/assets": {"data": []}, "/v1/tunes": {"data": []}, "/console/system": {"parts": parts}}


def test_the_check_passes_while_no_trainer_runs() -> None:
    with serving(_platform(trainer=False)) as api:
        assert len(check.check(f"http://localhost:{api.server_port}", TOKEN)) == 3


def test_the_check_names_a_service_that_is_not_ready() -> None:
    with serving(_platform(scheduler=False)) as api, pytest.raises(SystemExit, match="scheduler"):
        check.check(f"http://localhost:{api.server_port}", TOKEN)


def test_the_check_fails_for_a_key_that_is_not_valid() -> None:
    with serving(_platform()) as api, pytest.raises(HTTPError, match="401"):
        check.check(f"http://localhost:{api.server_port}", "another")
