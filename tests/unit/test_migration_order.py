"""Migrations form one line: two that both follow the same one would leave a database with two newest schemas."""

from alembic.script import ScriptDirectory

import migrations


def test_there_is_one_newest_schema() -> None:
    script = ScriptDirectory.from_config(migrations.config("postgresql+asyncpg://nobody@nowhere/none"))

    assert len(script.get_heads()) == 1
