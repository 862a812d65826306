"""Merges the services' OpenAPI documents into the one that clients see."""

from collections.abc import Mapping
from typing import Any

Document = dict[str, Any]
_INSIDE = ("/health", "/ready", "/metrics")
"""Paths that every process has for itself; the merged document shows the console's own /health instead."""


def merge(own: Document, others: Mapping[str, Document]) -> Document:
    """Return one OpenAPI document with the paths and schemas of all.

    `others` maps a service's name to its document. A schema that two services define differently is renamed to
    `<Service><Schema>` in the one that comes later.
    """
    paths: Document = dict(own.get("paths", {}))
    schemas: Document = dict(own.get("components", {}).get("schemas", {}))
    security: Document = {}
    for service, document in others.items():
        components = document.get("components", {})
        theirs: Document = components.get("schemas", {})
        clashes = {name for name, schema in theirs.items() if schemas.get(name, schema) != schema}
        names = {name: service.capitalize() + name if name in clashes else name for name in theirs}
        paths |= {path: _rename(item, names) for path, item in document.get("paths", {}).items() if path not in _INSIDE}
        schemas |= {names[name]: _rename(schema, names) for name, schema in theirs.items()}
        security |= components.get("securitySchemes", {})
    return {
        "openapi": own["openapi"],
        "info": own["info"],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": security},
    }


def _rename(node: Any, names: Mapping[str, str]) -> Any:
    """Point every `$ref` in the node at its schema's new name."""
    if isinstance(node, dict):
        return {key: _target(value, names) if key == "$ref" else _rename(value, names) for key, value in node.items()}
    if isinstance(node, list):
        return [_rename(item, names) for item in node]
    return node


def _target(ref: str, names: Mapping[str, str]) -> str:
    head, _, name = ref.rpartition("/")
    return f"{head}/{names.get(name, name)}"
