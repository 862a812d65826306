"""Every metric that the dashboard and the alerts use exists, with the labels that they use, and every metric is documented."""

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

import services.console.app
import services.inference.app
import services.inference.worker.app
import services.scheduler.app
import services.trainer.app
import services.upload.app  # noqa: F401 - each of these imports makes the metrics of its process

ROOT = Path(__file__).parents[2]
FILES = ROOT / "deploy" / "helm" / "tunesmith" / "files"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
_SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
OF_PROMETHEUS = {"le", "pod", "container", "namespace", "job", "instance"}
"""Labels of a histogram, and those that Prometheus adds."""
OF_CLIENT = {"process_resident_memory_bytes": set[str]()}
"""What prometheus_client says of each process."""
_WORDS = {"by", "on", "without", "and", "or", "unless"}


def _collectors() -> dict[str, MetricWrapperBase]:
    found = {collector for collector in REGISTRY._collector_to_names if isinstance(collector, MetricWrapperBase)}
    return {collector._name: collector for collector in found if collector._name.startswith("tunesmith_")}


def _series() -> dict[str, set[str]]:
    """Every series that a process exposes, with its labels."""
    return OF_CLIENT | {
        name + suffix: set(collector._labelnames)
        for name, collector in _collectors().items()
        for suffix in _SUFFIXES[collector._type]
    }


def _used(query: str) -> tuple[set[str], set[str]]:
    """Return the metrics and the labels that a PromQL query names."""
    bare = re.sub(r'"[^"]*"', '""', query)
    labels = set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", bare))
    for group in re.findall(r"\b(?:by|on|without)\s*\(([^)]*)\)", bare):
        labels |= {label.strip() for label in group.split(",")}
    bare = re.sub(r"\b(?:by|on|without)\s*\([^)]*\)|\{[^}]*\}|\[[^]]*\]", " ", bare)
    names = {name for name in re.findall(r"\b([a-zA-Z_:][\w:]*)\b(?!\s*\()", bare) if name not in _WORDS}
    return names, labels


def _queries() -> dict[str, str]:
    rules = [rule for group in yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
    panels = json.loads((FILES / "dashboard.json").read_text())["panels"]
    return {rule["alert"]: rule["expr"] for rule in rules} | {
        f"{panel['title']} ({target['refId']})": target["expr"] for panel in panels for target in panel.get("targets", ())
    }


@pytest.mark.parametrize(
    ("query", "names", "labels"),
    [
        ("max by (state) (tunesmith_tunes)", {"tunesmith_tunes"}, {"state"}),
        ('sum(rate(a_total{x="b",y=~"c|d"}[5m])) / on (z) c_total > 0.2', {"a_total", "c_total"}, {"x", "y", "z"}),
    ],
)
def test_a_query_is_read(query: str, names: set[str], labels: set[str]) -> None:
    assert _used(query) == (names, labels)


@pytest.mark.parametrize("where", _queries())
def test_what_a_query_names_exists(where: str) -> None:
    names, labels = _used(_queries()[where])
    exist = _series()

    assert names, "the query names no metric"
    assert names - exist.keys() == set()
    assert labels - OF_PROMETHEUS - set.union(*(exist[name] for name in names)) == set()


def test_every_metric_is_documented_in_its_own_words() -> None:
    rows = dict(re.findall(r"^\| `(tunesmith_\w+)` \| .* \| (.+?)\.? \|$", OPERATIONS, re.MULTILINE))

    assert rows == {name: collector._documentation.rstrip(".") for name, collector in _collectors().items()}


def test_every_alert_has_a_section() -> None:
    alerts = {name for name in _queries() if name.startswith("Tunesmith")}

    assert alerts == set(re.findall(r"^### (Tunesmith\w+)$", OPERATIONS, re.MULTILINE))
