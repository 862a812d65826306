"""`tunesmith doctor`: its findings for a folder on which no stack runs."""

from pathlib import Path

import pytest

from deploy.local import ports
from deploy.local.commands import doctor
from deploy.local.paths import StackPaths
from deploy.local.state import StackState, write


def _findings(data_dir: Path, level: str) -> list[str]:
    return [f"{finding.what} -> {finding.advice}" for finding in doctor.examine(StackPaths(data_dir)) if finding.level == level]


def test_a_new_folder_has_no_error(tmp_path: Path) -> None:
    said = _findings(tmp_path / "new", "ok")
    assert any(f"no stack is running on {tmp_path / 'new'}" in text for text in said)
    assert not [text for text in _findings(tmp_path / "new", "error") if str(tmp_path) in text]


def test_a_folder_that_kafka_cannot_use_is_an_error_with_advice(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    assert [text for text in _findings(tmp_path / "a,b", "error") if "comma" in text and "--data-dir" in text]


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_LEAST_DISK", 2**60)
    assert [text for text in _findings(tmp_path, "error") if "of disk are free" in text]


def test_a_package_that_differs_from_the_lock_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / "all.txt").write_text("httpx==0.1 \\\n    --hash=sha256:00\nnowhere==1 ; sys_platform == 'win32'\n")
    monkeypatch.setattr(doctor, "PROJECT", tmp_path)
    (wrong,) = [text for text in _findings(tmp_path, "error") if "lock" in text]
    assert "httpx" in wrong
    assert "nowhere" not in wrong
    assert "make install" in wrong


def test_the_reason_of_the_last_failed_start_is_shown(tmp_path: Path) -> None:
    paths = StackPaths(tmp_path)
    write(paths.state, StackState(supervisor=1, url="http://127.0.0.1:8080", ready=False, error="bootstrap exited with 1"))
    ports.allot(paths.ports, ["postgres"], 8080)
    assert [text for text in _findings(tmp_path, "error") if "bootstrap exited with 1" in text]
