"""Rows that cannot be changed, as after a bug that left one in a state that no code expects."""

from sqlalchemy import text

from shared.database.sessions import Database


async def refuse_changes(database: Database, table: str, *ids: str, column: str = "id") -> None:
    """Make every UPDATE and DELETE of these rows of a table fail."""
    function = f"""
        CREATE FUNCTION refuse_{table}() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF OLD.{column} IN ({", ".join(f"'{one}'" for one in ids)}) THEN RAISE EXCEPTION 'this row is bad'; END IF;
            IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
            RETURN NEW;
        END $$
    """
    trigger = f"CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION refuse_{table}()"
    async with database.begin() as session:
        await session.execute(text(function))
        await session.execute(text(trigger))
