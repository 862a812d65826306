"""Writes `schemas.json.gz`: what the API server takes for each kind that the chart has, without descriptions.

`python -m tests.charts.make_schemas`. The sources are Go modules: the OpenAPI that the API server publishes, as Kubernetes has it
in its own repository, and the CRDs of KEDA and of the Prometheus operator. Run it again after a version below has changed.
"""

import gzip
import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

KUBERNETES = "k8s.io/kubernetes@v1.36.3"
KEDA = "github.com/kedacore/keda/v2@v2.21.0"
PROMETHEUS = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
GROUPS = ("api__v1", "apis__apps__v1", "apis__autoscaling__v2", "apis__batch__v1", "apis__networking.k8s.io__v1")
GROUPS += ("apis__policy__v1", "apis__rbac.authorization.k8s.io__v1")
CRDS = {
    KEDA: "config/crd/bases/keda.sh_{}.yaml",
    PROMETHEUS: "example/prometheus-operator-crd/monitoring.coreos.com_{}.yaml",
}
NAMES = {
    KEDA: ("scaledjobs", "scaledobjects", "triggerauthentications"),
    PROMETHEUS: ("servicemonitors", "podmonitors", "prometheusrules"),
}
KINDS = ("Deployment", "StatefulSet", "Service", "ServiceAccount", "Secret", "ConfigMap", "Pod", "Job", "HorizontalPodAutoscaler")
KINDS += ("Ingress", "NetworkPolicy", "PodDisruptionBudget", "Role", "RoleBinding", "PersistentVolumeClaim")
FILE = Path(__file__).with_name("schemas.json.gz")
_META = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def _module(name: str) -> Path:
    told = subprocess.run(["go", "mod", "download", "-json", name], check=True, capture_output=True, text=True, cwd="/")
    return Path(json.loads(told.stdout)["Dir"])


def strict(schema: Any) -> Any:
    """Return the schema without what only people read, refusing fields that it does not name."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    # Kubernetes' own quantity and int-or-string are any scalar; a default says nothing about what is taken.
    kept = {name: part for name, part in schema.items() if name not in {"description", "default", "example", "externalDocs"}}
    properties = kept.pop("properties", None)
    made = {name: strict(part) for name, part in kept.items()}
    if properties is not None:
        made["properties"] = {name: strict(part) for name, part in properties.items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    if made.pop("x-kubernetes-int-or-string", False) or made.get("format") == "int-or-string":
        made.pop("type", None)
    if made.pop("nullable", False) and "type" in made:
        made["type"] = [made["type"], "null"]
    return {name: part for name, part in made.items() if not name.startswith("x-kubernetes")}


def _references(schema: Any) -> set[str]:
    return {part.split('"')[0] for part in json.dumps(schema).split("#/components/schemas/")[1:]}


def make() -> dict[str, Any]:
    """Return a document with the definitions, and a schema for each `apiVersion/kind`."""
    definitions: dict[str, Any] = {}
    kinds: dict[str, Any] = {}
    for group in GROUPS:
        text = (_module(KUBERNETES) / f"api/openapi-spec/v3/{group}_openapi.json").read_text()
        for name, schema in json.loads(text)["components"]["schemas"].items():
            definitions[name] = strict(schema)
            for kind in schema.get("x-kubernetes-group-version-kind", ()):
                if kind["kind"] in KINDS:
                    version = f"{kind['group']}/{kind['version']}".lstrip("/")
                    kinds[f"{version}/{kind['kind']}"] = {"$ref": f"#/components/schemas/{name}"}
    for module, file in CRDS.items():
        for name in NAMES[module]:
            crd = yaml.safe_load((_module(module) / file.format(name)).read_text())["spec"]
            for version in crd["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"$ref": _META}
                kinds[f"{crd['group']}/{version['name']}/{crd['names']['kind']}"] = schema
    wanted, used = _references(kinds), set[str]()
    while wanted - used:
        name = (wanted - used).pop()
        used.add(name)
        wanted |= _references(definitions[name])
    return {"components": {"schemas": {name: definitions[name] for name in sorted(used)}}, "kinds": dict(sorted(kinds.items()))}


if __name__ == "__main__":
    # Without a time in the header, so that equal schemas give equal files.
    FILE.write_bytes(gzip.compress(json.dumps(make(), separators=(",", ":"), sort_keys=True).encode(), mtime=0))
