"""The edge: where it sends each request, and what it refuses. The servers behind it report what reached them."""

import contextlib
import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from deploy.local import ports
from deploy.local.parts import edge
from shared.blobs.store import Blobs

PARTS = ("store", "upload", "scheduler", "inference", "console")
START_S = 20
REQUEST_ID = re.compile(r"req_[0-9a-f-]{36}")
FIRST_SEEN = threading.Event()


class Echo(BaseHTTPRequestHandler):
    """Responds with the name of its part and with the request that it got."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.endswith("/events/stream"):
            self._stream()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = {"part": self.server.part, "path": self.path, "host": self.headers["Host"], "bytes": len(body)}  # type: ignore[attr-defined]
        answer = json.dumps(said).encode()
        if self.path == "/v1/tune/hangs-up":
            self.close_connection = True
            return
        self.send_response(int(self.headers.get("X-Answer-Status") or 200))
        self.send_header("X-Heard", self.headers["X-User-Request-ID"])
        for name in ("Cookie", "Authorization"):
            self.send_header(f"X-Saw-{name}", self.headers.get(name, ""))
        if kind := self.headers.get("X-Answer-Type"):
            self.send_header("Content-Type", kind)
            self.send_header("Set-Cookie", "stored=1")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        # The edge closes the connection when a body is too large.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(b"" if self.command == "HEAD" else answer)

    def _stream(self) -> None:
        """Send one event, and the next only when the client says that it has the first."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"data: first\n\n")
        self.wfile.flush()
        self.wfile.write(b"data: second\n\n" if FIRST_SEEN.wait(START_S) else b"data: too late\n\n")

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the names that http.server calls

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("edge")
    port = ports.allot(folder / "ports.json", ["edge"], 0)["edge"]
    servers: dict[str, ThreadingHTTPServer] = {}
    for part in PARTS:
        servers[part] = ThreadingHTTPServer((ports.LOOPBACK, 0), Echo)
        servers[part].part = part  # type: ignore[attr-defined]
        threading.Thread(target=servers[part].serve_forever, daemon=True).start()
    addresses = {part: server.server_address[1] for part, server in servers.items()}
    front = edge.process(folder, port, bucket="tunesmith", store=f"{ports.LOOPBACK}:{addresses['store']}", services=addresses)
    running = subprocess.Popen(front.argv, env=dict(front.env), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + START_S
    while not ports.is_open(port):
        assert time.monotonic() < deadline
        assert running.poll() is None
    with httpx.Client(base_url=f"http://{ports.LOOPBACK}:{port}", timeout=60) as client:
        yield client
    running.terminate()
    running.wait(20)
    for server in servers.values():
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/", "console"),
        ("/docs", "console"),
        ("/health", "console"),
        ("/v1/assets", "upload"),
        ("/v1/assets/asset_1/complete-upload", "upload"),
        ("/v1/assets/octoai%3Adefault-sdxl", "upload"),
        ("/v1/tune", "scheduler"),
        ("/v1/tune/tune_1", "scheduler"),
        ("/v1/tunes?limit=1", "scheduler"),
        ("/v1/admin/accounts", "scheduler"),
        ("/v1/datasets", "scheduler"),
        ("/v1/datasets/dataset_1", "scheduler"),
        ("/console/login", "scheduler"),
        ("/console/login/codes", "scheduler"),
        ("/console/system", "console"),
        ("/tunes/tune_1", "console"),
        ("/generate/sd", "inference"),
        ("/tunesmith/staging/file/asset_1", "store"),
        ("/v1/assetsandmore", "console"),
    ],
)
def test_each_path_goes_to_its_part(origin: httpx.Client, path: str, part: str) -> None:
    assert origin.get(path).json() | {"bytes": 0} == {
        "part": part,
        "path": path,
        "host": origin.base_url.netloc.decode(),
        "bytes": 0,
    }


@pytest.mark.parametrize(
    ("path", "part"), [("//v1/assets", "upload"), ("//v1/tune/tune_1", "scheduler"), ("///generate/sd", "inference")]
)
def test_extra_slashes_at_the_start_are_ignored(origin: httpx.Client, path: str, part: str) -> None:
    url = f"{str(origin.base_url).rstrip('/')}{path}"
    said = origin.get(url).json()
    assert said["part"] == part
    assert said["path"] == "/" + path.lstrip("/")


@pytest.mark.parametrize("path", ["/metrics", "//metrics", "/%6detrics", "/ready"])
def test_internal_paths_are_not_found(origin: httpx.Client, path: str) -> None:
    url = f"{str(origin.base_url).rstrip('/')}{path}"
    answer = origin.get(url)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert REQUEST_ID.fullmatch(answer.headers["X-User-Request-ID"])


def test_a_presigned_url_arrives_as_it_was_signed(origin: httpx.Client) -> None:
    path = "/tunesmith/staging/file/asset%2F1%20a?X-Amz-Signature=a%2Fb%20c&X-Amz-Expires=60"
    said = origin.put(path, content=b"x").json()
    assert said["path"] == path
    assert said["host"] == origin.base_url.netloc.decode()


@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        ("PUT", "/tunesmith/staging/file/asset_1", edge.MAX_FILE_BYTES),
        ("POST", "/v1/assets", 32 * 2**20),
        ("POST", "/generate/sd", 32 * 2**20),
    ],
)
def test_a_body_is_bounded(origin: httpx.Client, method: str, path: str, limit: int) -> None:
    assert origin.request(method, path, content=bytes(limit)).json()["bytes"] == limit
    try:
        refused = origin.request(method, path, content=bytes(limit + 1))
    except httpx.WriteError:
        return
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert REQUEST_ID.fullmatch(refused.headers["X-User-Request-ID"])


def test_every_request_has_an_id_that_service_and_client_get(origin: httpx.Client) -> None:
    answers = [origin.get("/v1/tunes"), origin.get("/v1/tunes"), origin.get("/tunesmith/assets/x")]

    ids = {answer.headers["X-User-Request-ID"] for answer in answers}
    assert len(ids) == 3
    assert ids == {answer.headers["X-Heard"] for answer in answers}
    assert all(REQUEST_ID.fullmatch(each) for each in ids)


@pytest.mark.parametrize(
    ("given", "kept"), [("my-trace_0042", True), ("short", False), ("x" * 65, False), ("a b<script>c", False)]
)
def test_an_id_that_a_client_sends_is_used_only_in_the_right_form(origin: httpx.Client, given: str, kept: bool) -> None:
    answer = origin.get("/v1/tunes", headers={"X-User-Request-ID": given})

    assert (answer.headers["X-Heard"] == given) == kept
    assert answer.headers["X-User-Request-ID"] == answer.headers["X-Heard"]


def test_an_unavailable_service_is_an_error_in_json(origin: httpx.Client) -> None:
    answer = origin.get("/v1/tune/hangs-up")

    assert (answer.status_code, answer.json()["code"], answer.headers["Retry-After"]) == (502, "unavailable", "2")
    assert REQUEST_ID.fullmatch(answer.headers["X-User-Request-ID"])


def test_an_adapter_may_be_larger_than_an_image(origin: httpx.Client) -> None:
    size = edge.MAX_FILE_BYTES + 1
    assert origin.put("/tunesmith/staging/lora/asset_1", content=bytes(size)).json()["bytes"] == size


def test_the_admin_api_is_off(origin: httpx.Client) -> None:
    assert origin.get("/config/").json()["part"] == "console"
    with pytest.raises(httpx.ConnectError):
        httpx.get("http://127.0.0.1:2019/config/")


def test_an_event_arrives_before_the_next_one_is_sent(origin: httpx.Client) -> None:
    with origin.stream("GET", "/v1/tune/tune_1/events/stream") as answer:
        lines = answer.iter_lines()
        # If the edge buffered the response, the first event would arrive with the second, after a long wait.
        assert next(lines) == "data: first"
        FIRST_SEEN.set()
        assert [line for line in lines if line] == ["data: second"]


STORED = "/tunesmith/assets/asset_1/file"
PAGES = (
    "text/html",
    "TEXT/HTML; charset=utf-8",
    "image/svg+xml",
    "application/xhtml+xml",
    "application/xml",
    "text/xml",
    "image/png, text/html",
    "application/javascript",
    "",
)


def test_what_users_stored_is_never_served_as_a_page(origin: httpx.Client) -> None:
    for kind in PAGES:
        answer = origin.get(STORED, headers={"X-Answer-Type": kind, "Cookie": "session=1"})

        said = answer.headers
        assert (answer.status_code, said["Content-Type"]) == (200, "application/octet-stream"), kind
        assert said["Content-Disposition"] == "attachment"
        assert said["X-Content-Type-Options"] == "nosniff"
        assert said["Content-Security-Policy"] == "sandbox; default-src 'none'"
        assert "Set-Cookie" not in said
        assert said["X-Saw-Cookie"] == ""


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "application/json"])
def test_a_harmless_type_stays(origin: httpx.Client, kind: str) -> None:
    answer = origin.get(STORED, headers={"X-Answer-Type": kind})

    assert answer.headers["Content-Type"] == kind
    assert answer.headers["Content-Disposition"] == ("inline" if kind.startswith("image/") else "attachment")


@pytest.mark.parametrize(("method", "status"), [("GET", 404), ("HEAD", 403), ("POST", 200), ("PUT", 200)])
def test_what_the_store_itself_says_stays_xml(origin: httpx.Client, method: str, status: int) -> None:
    asked = {"X-Answer-Type": "application/xml", "X-Answer-Status": str(status)}
    answer = origin.request(method, STORED, headers=asked)

    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/xml")
    assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("Bearer tsk_secret", ""),
        ("Basic dXNlcjpwYXNz", ""),
        ("bearer AWS4-HMAC-SHA256 x", ""),
        ("AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=c", None),
    ],
)
def test_a_key_of_the_platform_does_not_reach_the_store(origin: httpx.Client, given: str, seen: str | None) -> None:
    answer = origin.get(STORED, headers={"Authorization": given})

    assert answer.headers["X-Saw-Authorization"] == (given if seen is None else seen)
    assert origin.get("/v1/assets", headers={"Authorization": given}).headers["X-Saw-Authorization"] == given


@pytest.mark.parametrize(
    "query",
    [
        "response-content-type=text/html",
        "response-content-type=text%2Fhtml&X-Amz-Signature=a",
        "X-Amz-Signature=a&Response-Content-Type=text/html",
        "response%2Dcontent%2Dtype=text/html",
        "response-content-type=image/png&response-content-type=text/html",
        "response-content-type=image/svg%2Bxml",
        "response-content-type",
        "response-content-encoding=gzip",
        "response-content-disposition=inline%3B%20filename%3Dpage.html",
        "a=b&response-cache-control=public",
        "response-expires=1",
        "RESPONSE-CONTENT-LANGUAGE=x",
    ],
)
def test_a_type_that_the_services_did_not_sign_is_refused(origin: httpx.Client, query: str) -> None:
    answer = origin.get(f"{STORED}?{query}")

    assert (answer.status_code, answer.json()["code"]) == (400, "http_error")
    assert "X-Heard" not in answer.headers


@pytest.mark.parametrize("key", ["assets/asset_1/01ABC.png", "assets/asset_1/01ABC.webp", "assets/asset_1/lora.safetensors"])
async def test_a_url_that_a_service_signs_passes(origin: httpx.Client, key: str) -> None:
    blobs = Blobs(str(origin.base_url), str(origin.base_url), access_key="a", secret_key="b", bucket="tunesmith", region="r")
    url = blobs.presign_get(key, 60)
    await blobs.close()

    answer = origin.get(url)

    assert (answer.status_code, answer.json()["part"]) == (200, "store")
    assert answer.json()["path"] == url.removeprefix(str(origin.base_url).rstrip("/"))


def test_a_part_of_a_file_is_answered_as_such(origin: httpx.Client) -> None:
    answer = origin.get(STORED, headers={"X-Answer-Type": "image/png", "X-Answer-Status": "206", "Range": "bytes=0-9"})

    assert (answer.status_code, answer.headers["Content-Type"]) == (206, "image/png")


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"Content-Type": "multipart/form-data; boundary=x"}, "the upload is a form .* curl -T FILE URL"),
        ({"Content-Type": "Multipart/Form-Data; boundary=x"}, "the upload is a form"),
        ({"Content-Encoding": "gzip"}, "the upload is compressed: send the file as it is"),
        ({"Content-Encoding": "aws-chunked, GZIP"}, "the upload is compressed"),
        ({"Content-Encoding": "br"}, "the upload is compressed"),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_form_and_a_compressed_file_are_refused(origin: httpx.Client, method: str, headers: dict[str, str], says: str) -> None:
    refused = origin.request(method, "/tunesmith/staging/file/asset_1?X-Amz-Signature=a", content=b"x", headers=headers)

    assert (refused.status_code, refused.json()["code"]) == (415, "http_error")
    assert re.search(says, refused.json()["detail"])
    assert "X-Heard" not in refused.headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "image/png"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Encoding": "aws-chunked"},
    ],
)
def test_an_upload_with_other_headers_passes(origin: httpx.Client, headers: dict[str, str]) -> None:
    stored = origin.put("/tunesmith/staging/file/asset_1?X-Amz-Signature=a", content=b"x", headers=headers)

    assert (stored.status_code, stored.json()["bytes"]) == (200, 1)
