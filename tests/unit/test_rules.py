"""The shape of the code: who may import whom, how large a file may be, and that settings and states are documented."""

import ast
import re
from pathlib import Path
from statistics import median

import pytest

from services.console.settings import ConsoleSettings
from services.inference.settings import InferenceSettings
from services.inference.worker.settings import WorkerSettings
from services.scheduler.settings import SchedulerSettings
from services.trainer.settings import TrainerSettings
from services.upload.settings import UploadSettings
from shared.messaging.events import FACTS
from shared.settings import ServiceSettings
from shared.states import TRANSITIONS

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for part in ("services", "shared", "client", "deploy", "migrations")
    for path in (ROOT / part).rglob("*.py")
    # A migration is a record of one change, as long as the change.
    if "versions" not in path.parts
)
MODEL_LIBRARIES = {"torch", "diffusers", "transformers", "peft", "accelerate", "safetensors"}
MAY_IMPORT_MODELS = ("services/trainer/engine/", "services/trainer/child_main.py", "services/inference/worker/", "shared/models/", "deploy/tiny/")
MOST_LINES, MEDIAN_LINES = 400, 120
SETTINGS = (
    ServiceSettings,
    UploadSettings,
    SchedulerSettings,
    TrainerSettings,
    InferenceSettings,
    WorkerSettings,
    ConsoleSettings,
)


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=_relative)
def test_a_file_is_not_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


def test_the_median_file_is_short() -> None:
    assert median(len(path.read_text().splitlines()) for path in SOURCES) < MEDIAN_LINES


@pytest.mark.parametrize("path", [p for p in SOURCES if _relative(p).startswith("services/")], ids=_relative)
def test_a_service_imports_shared_and_itself_only(path: Path) -> None:
    own = "services." + path.relative_to(ROOT / "services").parts[0].removesuffix(".py")
    others = {name for name in _imports(path) if name.startswith(("services.", "deploy", "tunesmith"))}

    assert {name for name in others if not (name + ".").startswith(own + ".")} == set()


@pytest.mark.parametrize("path", [p for p in SOURCES if _relative(p).startswith("shared/")], ids=_relative)
def test_shared_imports_no_service(path: Path) -> None:
    assert {name for name in _imports(path) if name.split(".")[0] in {"services", "deploy", "tunesmith"}} == set()


@pytest.mark.parametrize("path", [p for p in SOURCES if not _relative(p).startswith(MAY_IMPORT_MODELS)], ids=_relative)
def test_only_the_gpu_side_imports_model_libraries(path: Path) -> None:
    imports = _imports(path)

    assert {name for name in imports if name.split(".")[0] in MODEL_LIBRARIES} == set()
    assert {name for name in imports if name.startswith("shared.models")} == set()


@pytest.mark.parametrize("path", SOURCES, ids=_relative)
def test_nothing_is_unpickled(path: Path) -> None:
    assert not re.search(r"\bimport pickle\b|torch\.load\(|weights_only|allow_pickle=True", path.read_text())


@pytest.mark.parametrize("kind", SETTINGS)
def test_every_setting_is_described_and_documented(kind: type[ServiceSettings]) -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    for name, field in kind.model_fields.items():
        assert field.description, f"{kind.__name__}.{name} has no description"
        assert f"| `TUNESMITH_{name.upper()}` |" in text, f"TUNESMITH_{name.upper()} is not in docs/configuration.md"
        assert field.description in text, f"docs/configuration.md says something else of TUNESMITH_{name.upper()}"


def test_the_states_of_a_tune_are_documented_as_they_are() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    wanted = {f"| {state} | {target} | {why} |" for state, targets in TRANSITIONS.items() for target, why in targets.items()}

    assert {row for row in wanted if row not in text} == set()


def test_every_fact_is_documented() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()

    assert {name for name in FACTS if f"`{name}`" not in text} == set()


def test_every_promise_has_a_row_and_every_test_named_there_exists() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    promises = [int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    named = set(re.findall(r"`((?:\w+/)?test_\w+\.py)`", text))

    assert promises == list(range(1, 22))
    assert {name for name in named if not (ROOT / "tests" / (name if "/" in name else f"faults/{name}")).exists()} == set()
