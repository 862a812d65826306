"""What a user's environment gets: the client's wheel, its few dependencies, and no package of the services."""

import base64
import configparser
import email
import json
import os
import subprocess
import sys
import tarfile
import threading
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.core import TyperGroup

from tunesmith import cli

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INFO = f"tunesmith-{PROJECT['version']}.dist-info"
DEPENDENCIES = {"httpx", "pydantic", "rich", "typer"}
CLONE_ONLY = ("up", "down", "env", "logs", "demo", "checkpoints", "keys", "dlq", "migrate", "doctor")
CLIENT = ("asset", "tune", "dataset", "generate", "console", "admin", "completion")
SERVER_SIDE = ("shared", "services", "deploy", "migrations", "PIL")
RUN = "import sys; sys.path[:0] = sys.argv[1:3]; del sys.argv[1:3]; "
Python = Callable[..., subprocess.CompletedProcess[str]]


def _build(project: Path, folder: Path) -> zipfile.ZipFile:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=project, check=True, capture_output=True, timeout=120)
    [wheel] = folder.glob("*.whl")
    return zipfile.ZipFile(wheel)


def _closure(names: set[str]) -> set[str]:
    """Return these distributions and all that they need here."""
    found: set[str] = set()
    while names:
        found |= names
        needs = [Requirement(line) for name in names for line in metadata.requires(name) or []]
        names = {canonicalize_name(need.name) for need in needs if not need.marker or need.marker.evaluate({"extra": ""})} - found
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    with _build(ROOT, tmp_path_factory.mktemp("wheel")) as file:
        yield file


@pytest.fixture(scope="module")
def python(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Python:
    """Return a function that runs code where the wheel and its dependencies are installed, and nothing else is."""
    installed, dependencies = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("dependencies")
    wheel.extractall(installed)
    for name in _closure(DEPENDENCIES):
        files = metadata.files(name)
        assert files is not None
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            (dependencies / top).symlink_to(metadata.distribution(name).locate_file(top))

    def python(code: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        # -I and -S: neither the working directory nor the environment's site-packages are on the path.
        command = [sys.executable, "-I", "-S", "-c", RUN + code, str(installed), str(dependencies), *arguments]
        env |= {"PATH": os.environ["PATH"], "COLUMNS": "200"}
        return subprocess.run(command, check=False, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)

    return python


@pytest.fixture(scope="module")
def tunesmith(wheel: zipfile.ZipFile, python: Python) -> Python:
    """Return a function that runs the wheel's console script."""
    entry_points = configparser.ConfigParser()
    entry_points.read_string(wheel.read(f"{INFO}/entry_points.txt").decode())
    assert dict(entry_points["console_scripts"]) == {"tunesmith": "tunesmith.cli:main"}
    code = "from tunesmith.cli import main; sys.argv[0] = 'tunesmith'; main()"
    return lambda *arguments, **env: python(code, *arguments, **env)


@pytest.fixture
def server() -> Iterator[str]:
    """Return the address of a server that has one asset, and draws one image."""
    star = {"id": "asset_1", "name": "star-1", "asset_type": "file", "status": "ready", "status_details": "", "size_bytes": 3}
    answers = {
        "GET": {"data": [star | {"created_at": "2026-01-01T00:00:00Z", "data": {}}]},
        "POST": {"images": [{"image_b64": base64.b64encode(b"an image").decode(), "seed": 7, "removed_for_safety": False}]},
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.dumps(answers[self.command] | {"has_more": False, "total": 1}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *arguments: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_the_wheel_holds_the_client_alone(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    modules = {str(path.relative_to(ROOT / "client" / "tunesmith")) for path in (ROOT / "client" / "tunesmith").rglob("*.py")}

    assert {name.partition("/")[0] for name in names} == {"tunesmith", INFO}
    assert {name.removeprefix("tunesmith/") for name in names if name.startswith("tunesmith/")} == (
        modules - {"demo.py", "sheet.py"} | {"py.typed"}
    )


def test_the_source_distribution_holds_what_the_wheel_is_made_of(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}

    modules = {f"client/{name}" for name in wheel.namelist() if name.startswith("tunesmith/")}
    assert names == modules | {"pyproject.toml", "README.md", "LICENSE", ".gitignore", "PKG-INFO"}


def test_the_wheels_metadata_names_the_clients_dependencies_alone(wheel: zipfile.ZipFile) -> None:
    told = email.message_from_bytes(wheel.read(f"{INFO}/METADATA"))
    urls = dict(line.split(", ") for line in told.get_all("Project-URL", []))

    needs = [Requirement(line) for line in told.get_all("Requires-Dist", [])]
    assert {need.name for need in needs if not need.marker} == DEPENDENCIES
    assert [(need.name, str(need.marker)) for need in needs if need.marker] == [("pillow", 'extra == "images"')]
    assert set(urls) == {"Documentation", "Source", "Changelog"}
    assert f'URL = "{urls["Source"]}"' in wheel.read("tunesmith/clone.py").decode()


def test_every_module_imports_with_these_dependencies_and_the_services_do_not(wheel: zipfile.ZipFile, python: Python) -> None:
    modules = sorted(name.removesuffix(".py").replace("/", ".") for name in wheel.namelist() if name.endswith(".py"))
    code = """
import importlib, importlib.util
for name in sys.argv[1].split():
    importlib.import_module(name.removesuffix(".__init__"))
print([name for name in sys.argv[2].split() if importlib.util.find_spec(name)])
"""
    told = python(code, " ".join(modules), " ".join(SERVER_SIDE))

    assert (told.stdout, told.stderr) == ("[]\n", "")


def test_the_help_lists_what_the_client_can_do_and_where_the_rest_is(tunesmith: Python) -> None:
    told = tunesmith("--help")

    assert told.returncode == 0, told.stderr
    listed = {line.split()[1] for line in told.stdout.partition("Commands")[2].splitlines() if line.startswith("│")}
    assert listed == set(CLIENT)
    assert f"need a clone: {PROJECT['urls']['Source']}" in told.stdout


@pytest.mark.parametrize("command", CLIENT)
def test_a_command_of_the_client_explains_itself(tunesmith: Python, command: str) -> None:
    told = tunesmith(command, "--help")

    assert (told.returncode, told.stderr) == (0, "")
    assert f"tunesmith {command} [OPTIONS]" in told.stdout


def test_a_command_of_the_local_stack_says_that_it_needs_a_clone(python: Python) -> None:
    code = """
from tunesmith.cli import main
for command in sys.argv[1:]:
    sys.argv = ["tunesmith", command]
    try:
        main()
    except SystemExit as end:
        print(command, end.code)
"""
    told = python(code, *CLONE_ONLY)

    assert told.stdout.splitlines() == [f"{command} 1" for command in CLONE_ONLY]
    assert told.stderr.splitlines() == [
        f"error: `tunesmith {command}` needs a clone of Tunesmith, and this is the installed client: run "
        f"`git clone {PROJECT['urls']['Source']} && cd tunesmith && make install`, then `.venv/bin/tunesmith {command}` there"
        for command in CLONE_ONLY
    ]


def test_a_clone_has_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    group = typer.main.get_command(cli.app)
    assert isinstance(group, TyperGroup)
    context = typer.Context(group)

    commands = group.list_commands(context)
    assert set(commands) == {*CLIENT, *CLONE_ONLY}
    for command in commands:
        monkeypatch.setattr(sys, "argv", ["tunesmith", command])
        assert group.get_command(context, command) is not None


def test_without_a_server_it_says_what_to_set(tunesmith: Python) -> None:
    told = tunesmith("asset", "list")

    assert told.returncode == 2
    assert told.stderr.startswith("error: TUNESMITH_URL and OCTOAI_TOKEN are not set")


def test_a_server_that_does_not_answer_is_one_line_with_its_address(tunesmith: Python) -> None:
    told = tunesmith("asset", "list", TUNESMITH_URL="http://127.0.0.1:9", OCTOAI_TOKEN="a-key")

    assert (told.returncode, told.stdout) == (3, "")
    assert told.stderr.startswith("error: http://127.0.0.1:9/v1/assets?offset=0 cannot be reached")
    assert told.stderr.count("\n") == 1


def test_it_lists_and_draws_on_a_server(tunesmith: Python, server: str, tmp_path: Path) -> None:
    env = {"TUNESMITH_URL": server, "OCTOAI_TOKEN": "a-key"}
    listed, drawn = tunesmith("asset", "list", **env), tunesmith("generate", "a star", "--out", str(tmp_path), **env)

    assert "star-1" in listed.stdout, listed.stderr
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "a-star-7.png").read_bytes() == b"an image"


def test_the_octoai_command_is_a_wheel_of_its_own_without_the_sdks_import_name(tmp_path: Path) -> None:
    entry_points = configparser.ConfigParser()
    with _build(ROOT / "client" / "octoai_cli", tmp_path) as file:
        [info] = {name.partition("/")[0] for name in file.namelist()} - {"tunesmith_octoai_cli"}
        entry_points.read_string(file.read(f"{info}/entry_points.txt").decode())
        needs = [
            Requirement(line) for line in email.message_from_bytes(file.read(f"{info}/METADATA")).get_all("Requires-Dist", [])
        ]

    assert info.startswith("tunesmith_octoai_cli-")
    assert dict(entry_points["console_scripts"]) == {"octoai": "tunesmith_octoai_cli.cli:main"}
    assert {need.name for need in needs} == {"httpx", "pyyaml", "tunesmith", "typer"}
    assert all(need.specifier.contains(PROJECT["version"]) for need in needs if need.name == "tunesmith")
