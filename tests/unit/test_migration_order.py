"""Migrations form one chain: two that follow the same one would make two newest schemas."""

from alembic.script import ScriptDirectory

import migrations


def test_there_is_one_newest_schema() -> None:
    script = ScriptDirectory.from_config(migrations.config("postgresql+asyncpg://user@host/none"))

    assert len(script.get_heads()) == 1
