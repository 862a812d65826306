"""Secrets as settings: from files, and a password apart from its URL."""

from pathlib import Path

import pytest
from sqlalchemy import make_url

from shared.settings import ServiceSettings

URL = "postgresql+asyncpg://tunesmith@db:5432/tunesmith"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "DATABASE_URL": URL,
        "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
        "S3_ENDPOINT": "http://store:9000",
        "S3_ACCESS_KEY": "from-the-environment",
        "SECRETS_DIR": str(tmp_path),
    }.items():
        monkeypatch.setenv(f"TUNESMITH_{name}", value)
    (tmp_path / "tunesmith_s3_secret_key").write_text("from-a-file\n")


def test_a_value_is_read_from_a_file_unless_it_is_in_the_environment(tmp_path: Path) -> None:
    (tmp_path / "tunesmith_s3_access_key").write_text("from-a-file")

    settings = ServiceSettings()

    assert settings.s3_secret_key.get_secret_value() == "from-a-file"
    assert settings.s3_access_key.get_secret_value() == "from-the-environment"
    assert settings.database_url.get_secret_value() == URL


def test_a_password_with_any_character_is_added_to_the_url(tmp_path: Path) -> None:
    password = "p@ss:w/rd %25é"
    (tmp_path / "tunesmith_database_password").write_text(password)

    url = ServiceSettings().database_url.get_secret_value()

    assert make_url(url).password == password
    assert url.isascii()
