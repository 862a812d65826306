"""Every route of the API description is listed in `sealed_routes`, and describes its responses."""

from pathlib import Path
from typing import Any

import pytest

from services.console.app import create_app as create_console
from services.console.settings import ConsoleSettings
from shared.errors import TunesmithError
from tests.support.platform_world import applications, document, operations
from tests.support.sealed_routes import ROUTES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The merged API description; no backend is connected."""

    def make(kind: Any) -> Any:
        folder: Path = tmp_path_factory.mktemp("work")
        return kind(
            database_url="postgresql+asyncpg://a:b@127.0.0.1:1/x",
            kafka_bootstrap_servers="127.0.0.1:1",
            s3_endpoint="http://127.0.0.1:1",
            s3_access_key="a",
            s3_secret_key="b",
            work_dir=folder,
        )

    return document(applications(make), create_console(ConsoleSettings()))


def test_every_route_is_listed_in_sealed_routes(described: dict[str, Any]) -> None:
    found = set(operations(described))

    assert found - ROUTES.keys() == set(), "add each to tests/support/sealed_routes.py"
    assert ROUTES.keys() - found == set(), "these routes no longer exist"


def test_every_operation_names_its_errors_with_their_schema(described: dict[str, Any]) -> None:
    for operation in operations(described):
        method, path = operation.split(" ")
        answers = described["paths"][path][method.lower()]["responses"]
        wanted = set()
        if ROUTES[operation].part:
            wanted |= {"401", "403", "422", "429", "503"}
        if "{" in path:
            wanted.add("404")
        if "requestBody" in described["paths"][path][method.lower()]:
            wanted |= {"400", "408", "409", "413"}
        assert wanted <= answers.keys(), operation
        for status, answer in answers.items():
            assert "X-User-Request-ID" in answer["headers"], (operation, status)
            if status >= "400":
                name = "ValidationErrors" if status == "422" else "Error"
                assert answer["content"]["application/json"]["schema"] == {"$ref": f"#/components/schemas/{name}"}, operation
            if status in {"429", "503"}:
                assert "Retry-After" in answer["headers"], (operation, status)


def test_every_reference_has_its_schema(described: dict[str, Any]) -> None:
    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*(references(value) for value in node.values()))
        return set().union(*(references(value) for value in node)) if isinstance(node, list) else set()

    wanted = {ref.removeprefix("#/components/schemas/") for ref in references(described)}
    assert wanted - described["components"]["schemas"].keys() == set()


def test_every_body_has_an_example(described: dict[str, Any]) -> None:
    for operation in operations(described):
        method, path = operation.split(" ")
        body = described["paths"][path][method.lower()].get("requestBody")
        if body is None:
            continue
        schema = body["content"]["application/json"]["schema"]
        named = described["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        assert named.get("examples"), f"{operation} has no example in its schema"


def _kinds(base: type[TunesmithError]) -> set[type[TunesmithError]]:
    return {base}.union(*(_kinds(kind) for kind in base.__subclasses__()))


def test_every_error_code_is_documented_with_its_status() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    # Errors of the trainer appear in tunes, not in HTTP responses.
    kinds = {kind for kind in _kinds(TunesmithError) if not kind.__module__.startswith("services.trainer")}

    assert {kind.code for kind in kinds if f"| `{kind.code}` | {kind.status} |" not in text} == set()
