"""The shape of the code: who may import whom, how large a file may be, and that settings, states and events are documented.

Each rule lists every offender at once.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median

from services.console.settings import ConsoleSettings
from services.inference.settings import InferenceSettings
from services.inference.worker.settings import WorkerSettings
from services.scheduler.settings import SchedulerSettings
from services.trainer.settings import TrainerSettings
from services.upload.settings import UploadSettings
from shared.messaging.events import EVENTS
from shared.settings import ApiSettings, ProcessSettings, ServiceSettings
from shared.states import TRANSITIONS

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for part in ("services", "shared", "client", "deploy", "migrations")
    for path in (ROOT / part).rglob("*.py")
    # A migration is a record of one change, as long as the change.
    if "versions" not in path.parts
)
MOST_LINES, MEDIAN_LINES = 400, 120
SETTINGS = (
    ProcessSettings,
    ServiceSettings,
    ApiSettings,
    UploadSettings,
    SchedulerSettings,
    TrainerSettings,
    InferenceSettings,
    WorkerSettings,
    ConsoleSettings,
)

MAY_IMPORT = {
    "top": {"top"},
    "database": {"top"},
    "formats": {"top"},
    "accounts": {"top", "database"},
    "blobs": {"top", "database", "formats"},
    "messaging": {"top", "database"},
    "models": {"top", "formats"},
    "tunes": {"top", "database", "formats", "accounts", "blobs", "messaging"},
    "http": {"top", "database", "accounts"},
}
"""The folders of `shared`, each with those that it may import. `top` is the modules that lie in no folder."""

MODEL_LIBRARIES = {"torch", "diffusers", "transformers", "peft", "accelerate", "safetensors"}
MAY_IMPORT_MODELS = (
    "services/trainer/engine/",
    "services/trainer/child_main.py",
    "services/inference/worker/",
    "shared/models/",
    "deploy/tiny/",
)
TORCH_FREE_ENGINE = ("config", "reports", "errors")
"""The modules of the training engine that its parent process may import."""
ENGINE_MAY_IMPORT = (
    "shared.errors",
    "shared.engines",
    "shared.formats",
    "shared.models",
    "shared.tunes.buckets",
    "shared.tunes.options",
    "shared.tunes.memory",
)

BASE_MODULES = {
    "upload": {"settings", "schemas", "repository", "data", "transitions", "sources", "work"},
    "scheduler": {"settings", "schemas", "repository", "answers", "checks", "notifications"},
}
"""The lowest modules of the services that have sub-folders: they import no other module of their service."""

SQL_IN_REPOSITORIES = ("services/console/", "services/inference/", "services/scheduler/")
"""The services that keep all of their SQL in `repository.py`."""
_SQL = re.compile(
    r"^(from|import) sqlalchemy(?!\.(ext|exc)\b)|\bsession\.(execute|scalars?|get|get_one|add|add_all)\(", re.MULTILINE
)


@cache
def _imports(path: Path) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _below(*folders: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield the path of each source below the folders, with what it imports."""
    for path in SOURCES:
        if (name := _relative(path)).startswith(folders):
            yield name, _imports(path)


def _starts(name: str, *packages: str) -> bool:
    return (name + ".").startswith(tuple(package + "." for package in packages))


def _room(module: str) -> str:
    """Return the folder of `shared` that a module lies in."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (ROOT / "shared" / parts[1]).is_dir() else "top"


def test_no_file_is_too_long() -> None:
    lengths = {_relative(path): len(path.read_text().splitlines()) for path in SOURCES}

    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}
    assert median(lengths.values()) < MEDIAN_LINES


def test_each_folder_of_shared_imports_only_those_of_its_row() -> None:
    offenders = {
        f"{name} imports {module}"
        for name, imports in _below("shared/")
        for module in imports
        if _starts(module, "shared") and module != "shared"
        if _room(module) not in MAY_IMPORT[here := _room(name.removesuffix(".py").replace("/", "."))] | {here}
    }

    assert offenders == set()
    folders = {path.name for path in (ROOT / "shared").iterdir() if (path / "__init__.py").exists()}
    assert folders == MAY_IMPORT.keys() - {"top"}, "the table has a row for each folder"


def test_shared_imports_no_service() -> None:
    offenders = {
        f"{name} imports {module}"
        for name, imports in _below("shared/")
        for module in imports
        if _starts(module, "services", "deploy", "tunesmith", "migrations")
    }

    assert offenders == set()


def test_a_service_imports_shared_and_itself_only() -> None:
    offenders = {
        f"{name} imports {module}"
        for name, imports in _below("services/")
        for module in imports
        if _starts(module, "services", "deploy", "tunesmith", "migrations") and module != "services"
        if not _starts(module, "services." + name.split("/")[1].removesuffix(".py"))
    }

    assert offenders == set()


def test_a_sub_folder_of_a_service_imports_no_other_sub_folder_and_base_modules_import_none() -> None:
    offenders = set()
    for service, base in BASE_MODULES.items():
        folders = {path.name for path in (ROOT / "services" / service).iterdir() if (path / "__init__.py").exists()}
        for name, imports in _below(f"services/{service}/"):
            place = name.removesuffix(".py").split("/")[2]
            for module in imports:
                if not module.startswith(f"services.{service}."):
                    continue
                other = module.removeprefix(f"services.{service}.").split(".")[0]
                if (place in folders and other in folders and other != place) or (place in base and other not in base):
                    offenders.add(f"{name} imports {module}")

    assert offenders == set()


def test_the_image_worker_imports_of_its_service_the_inputs_only() -> None:
    offenders = {
        f"{name} imports {module}"
        for name, imports in _below("services/inference/worker/")
        for module in imports
        if _starts(module, "services.inference") and module != "services.inference"
        if not _starts(module, "services.inference.worker", "services.inference.inputs")
    }

    assert offenders == set()


def test_the_training_engine_knows_neither_its_service_nor_database_store_and_broker() -> None:
    offenders = {
        f"{name} imports {module}"
        for name, imports in _below("services/trainer/engine/")
        for module in imports
        if _starts(module, "services", "shared") and module not in {"services.trainer", "shared", "shared.tunes"}
        if not _starts(module, "services.trainer.engine", *ENGINE_MAY_IMPORT)
    }

    assert offenders == set()


def test_deploy_imports_shared_migrations_and_the_public_assets_of_upload_only() -> None:
    offenders = {
        f"{name} imports {module}"
        for name, imports in _below("deploy/")
        for module in imports
        if _starts(module, "services", "tunesmith", "tunesmith_octoai_cli") and module not in {"services", "services.upload"}
        if not _starts(module, "services.upload.public_assets")
    }

    assert offenders == set()


def test_the_client_imports_the_local_stack_inside_functions_only_and_no_other_part() -> None:
    offenders = {
        f"{name} imports {module}"
        for name, imports in _below("client/")
        for module in imports
        if _starts(module, "shared", "services", "migrations", "deploy") and module != "deploy"
        if not _starts(module, "deploy.local")
    }
    offenders |= {
        f"{name} imports deploy at the top"
        for path in SOURCES
        if (name := _relative(path)).startswith("client/")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ImportFrom) and _starts(node.module or "", "deploy")
    }

    assert offenders == set()


def test_only_the_gpu_side_imports_model_libraries() -> None:
    offenders = {
        f"{name} imports {module}"
        for path in SOURCES
        if not (name := _relative(path)).startswith(MAY_IMPORT_MODELS)
        for module in _imports(path)
        if module.split(".")[0] in MODEL_LIBRARIES or _starts(module, "shared.models")
    }
    torch_free = {f"services/trainer/engine/{name}.py" for name in TORCH_FREE_ENGINE}
    offenders |= {
        f"{name} imports {module}"
        for name, imports in _below(*torch_free)
        for module in imports
        if module.split(".")[0] in MODEL_LIBRARIES
    }
    offenders |= {
        f"{name} imports {module}"
        for name, imports in _below("services/trainer/")
        if not name.startswith(MAY_IMPORT_MODELS)
        for module in imports
        if _starts(module, "services.trainer.engine") and module != "services.trainer.engine"
        if module.split(".")[3] not in TORCH_FREE_ENGINE
    }

    assert offenders == set()


def test_sql_lives_in_repositories() -> None:
    offenders = {
        name
        for path in SOURCES
        if (name := _relative(path)).startswith(SQL_IN_REPOSITORIES)
        if path.name != "repository.py" and _SQL.search(path.read_text())
    }

    assert offenders == set()


def test_nothing_is_unpickled() -> None:
    forbidden = re.compile(r"\bimport pickle\b|torch\.load\(|weights_only|allow_pickle=True")

    assert {_relative(path) for path in SOURCES if forbidden.search(path.read_text())} == set()


def test_every_setting_is_described_and_documented_in_the_same_words() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    fields = {name: field for kind in SETTINGS for name, field in kind.model_fields.items()}

    assert {name for name, field in fields.items() if not field.description} == set(), "these have no description"
    assert {name for name in fields if f"| `TUNESMITH_{name.upper()}` |" not in text} == set(), "these have no row"
    other = {name: field.description for name, field in fields.items() if (field.description or "") not in text}
    assert other == {}, "the page describes these in other words"


def test_the_states_of_a_tune_are_documented_as_they_are() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    wanted = {f"| {state} | {target} | {why} |" for state, targets in TRANSITIONS.items() for target, why in targets.items()}

    assert {row for row in wanted if row not in text} == set()


def test_the_table_of_imports_is_documented_as_it_is() -> None:
    text = (ROOT / "docs" / "structure.md").read_text()
    rows = re.findall(r"^\| (\w+) \| ([\w, ]+) \| .* \|$", text.split("## Which folder may import which")[1], re.MULTILINE)

    assert {folder: set(others.split(", ")) for folder, others in rows if folder != "folder"} == MAY_IMPORT


def test_every_file_that_a_page_names_or_links_exists() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "deploy" / "checkpoints" / "README.md"]
    named = re.compile(r"`((?:shared|services|client|deploy|tests|migrations)/[\w./*-]+)`")
    linked = re.compile(r"\]\((?!https?:)([^)#]+)")
    missing = {
        f"{_relative(page)}: {path}"
        for page in pages
        for folder, pattern in ((ROOT, named), (page.parent, linked))
        for path in pattern.findall(page.read_text())
        if not any(folder.glob(path.rstrip("/"))) and not (folder / path).exists()
    }

    assert missing == set()


def test_every_event_is_documented() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()

    assert {name for name in EVENTS if f"`{name}`" not in text} == set()


def test_every_promise_has_a_row_and_every_test_named_there_exists() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    promises = [int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    named = set(re.findall(r"`((?:\w+/)?test_\w+\.py)`", text))

    assert promises == list(range(1, 22))
    assert {name for name in named if not (ROOT / "tests" / (name if "/" in name else f"faults/{name}")).exists()} == set()
