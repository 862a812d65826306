"""Merges the services' OpenAPI documents into the document that clients see."""

from collections.abc import Mapping
from typing import Any, cast

Document = dict[str, Any]
_PROBES = ("/health", "/ready", "/metrics")
"""Paths that every process has; the merged document describes only the console's own /health."""


def merge(own: Document, others: Mapping[str, Document]) -> Document:
    """Return one OpenAPI document with the paths and schemas of all.

    `others` maps a service's name to its document. If two services define a schema differently, the second one's is renamed to
    `<Service><Schema>`.
    """
    paths: Document = dict(own.get("paths", {}))
    schemas: Document = dict(own.get("components", {}).get("schemas", {}))
    security: Document = {}
    for service, document in others.items():
        components = document.get("components", {})
        theirs: Document = components.get("schemas", {})
        clashes = {name for name, schema in theirs.items() if schemas.get(name, schema) != schema}
        names = {name: service.capitalize() + name if name in clashes else name for name in theirs}
        paths |= {path: _rename(item, names) for path, item in document.get("paths", {}).items() if path not in _PROBES}
        schemas |= {names[name]: _rename(schema, names) for name, schema in theirs.items()}
        security |= components.get("securitySchemes", {})
    return {
        "openapi": own["openapi"],
        "info": own["info"],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": security},
    }


def _rename(node: Any, names: Mapping[str, str]) -> Any:
    """Return the node with every `$ref` pointing at its schema's new name."""
    if isinstance(node, dict):
        items = cast("Document", node).items()
        return {key: _target(value, names) if key == "$ref" else _rename(value, names) for key, value in items}
    if isinstance(node, list):
        return [_rename(item, names) for item in cast("list[Any]", node)]
    return node


def _target(ref: str, names: Mapping[str, str]) -> str:
    head, _, name = ref.rpartition("/")
    return f"{head}/{names.get(name, name)}"
