"""Bringing a store to the version that this gardener reads and writes.

Alembic runs the steps in ``migrations``. This module reads the version of a database, refuses a
database that is not a store, and converts stores from before alembic. Those have their version in
a table ``gardener_version``; on PostgreSQL their tables are moved from the connection's default
schema, usually ``public``, to ``SCHEMA``.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, func, inspect, select, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from gardener_api.formatting import one_line
from gardener_api.store.engine import SCHEMA
from gardener_api.store.schema import NEWEST, StoreError, version

_LOCK = 7_034_186_292_514_233  # key of a PostgreSQL advisory lock; arbitrary, used by nobody else
_SCRIPTS = "gardener_api.store:migrations"
_OLD_VERSION = "gardener_version"
_OLD_NEWEST = 5
# Marks a converted store, so that an older gardener refuses it instead of making a new one.
_TAKEN_OVER = 6
_OLD_TABLES = {
    "jobs": "wire_id",
    "requests": "covers_tables",
    "events": "left",
    "partitions": "day_before",
    "operations": "bq_job_ids",
    "holds": "since",
}
"""The tables of versions 1 to 5, each with a column that other tables of its name do not have."""


def prepare(engine: Engine, *, may_migrate: bool = True) -> None:
    """Migrate a store to the newest version, or create it, if needed.

    Args:
        engine: An engine made by ``writing``.
        may_migrate: Whether to migrate an older store or create a missing one; else it is refused.

    Raises:
        StoreError: See ``migrate``; or the store is older or missing, and ``may_migrate`` is false.
    """
    try:
        with engine.begin() as connection:
            found = _version(connection)
    except SQLAlchemyError as error:
        raise _unusable(engine, error) from error
    if found == NEWEST:
        return
    is_older = found is None or "" < found < NEWEST
    if is_older and not may_migrate:
        where = engine.url.render_as_string(hide_password=True)
        what = f"{where} is of version {found}" if found else f"there is none in {where}"
        raise StoreError(
            f"the job store: {what}: expected version {NEWEST}. What to do: run `gardener migrate`"
            " once (GARDENER_MIGRATE is 'never': no other process does it)"
        )
    migrate(engine)


def migrate(engine: Engine) -> str | None:
    """Create the tables in an empty database, or migrate an older store to the newest version.

    It is one transaction: a failure changes nothing. Concurrent processes take turns.

    Args:
        engine: An engine made by ``writing``.

    Returns:
        The version that the store had; ``None`` if there was no store.

    Raises:
        StoreError: The database cannot be read, holds something else, or was written by a newer
            gardener.
    """
    try:
        with engine.begin() as connection:
            # On SQLite, the transaction's write lock serializes concurrent processes.
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            return _migrate(connection, engine.url.render_as_string(hide_password=True))
    except SQLAlchemyError as error:
        raise _unusable(engine, error) from error


def _unusable(engine: Engine, error: SQLAlchemyError) -> StoreError:
    where = engine.url.render_as_string(hide_password=True)
    return StoreError(
        f"the job store {where} cannot be used: {one_line(error)}."
        " What to do: see whether its database runs, and is reached from here"
    )


def _version(connection: Connection) -> str | None:
    """Return alembic's revision; ``None`` without its table, "" unless that has one row."""
    if not inspect(connection).has_table(version.name):
        return None
    found = connection.execute(select(version.c.version_num)).scalars().all()
    return str(found[0]) if len(found) == 1 else ""


def _migrate(connection: Connection, where: str) -> str | None:
    # Imported here, since it takes 0.2 s and most starts need no migration.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    config.attributes["connection"] = connection
    found = _version(connection)
    if found is not None:
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        _refuse_unknown(connection, found, known, where)
    elif _take_over(connection, where):
        found = "0001"
        command.stamp(config, found)
    else:
        _refuse_other_tables(connection, where)
        if connection.dialect.name == "postgresql" and not inspect(connection).has_schema(SCHEMA):
            connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
    command.upgrade(config, "head")
    return found


def _refuse_unknown(connection: Connection, found: str, known: Collection[str], where: str) -> None:
    if found in known:
        return
    if not _are_ours(connection, ["jobs", "requests", "events"]):
        raise StoreError(
            f"{where} has a table {version.name}, but not of a gardener: expected the job store's"
            " database, or an empty one"
        )
    if not found:
        raise StoreError(f"{where}: {version.name} is damaged: expected one row")
    raise StoreError(
        f"{where} is a store of version {found}: expected at most {NEWEST};"
        " it was written by a newer gardener"
    )


def _refuse_other_tables(connection: Connection, where: str) -> None:
    present = set(inspect(connection).get_table_names()) & set(_OLD_TABLES)
    if present:
        raise StoreError(
            f"{where} has tables of these names, but not of a gardener:"
            f" {', '.join(sorted(present))}"
        )


def _take_over(connection: Connection, where: str) -> bool:
    """Convert a store of versions 1 to 5 to one that alembic can migrate.

    Returns:
        Whether there was such a store.
    """
    on_postgresql = connection.dialect.name == "postgresql"
    if on_postgresql:
        # Older gardeners used the default search path of the connection.
        connection.execute(text("SET LOCAL search_path TO DEFAULT"))
    old = _old_store(connection, where)
    if old:
        for table in old if on_postgresql else ():
            connection.execute(text(f"ALTER TABLE {table} SET SCHEMA {SCHEMA}"))
        connection.execute(text(f"UPDATE {_OLD_VERSION} SET version = {_TAKEN_OVER}"))  # noqa: S608 - constants
    if on_postgresql:
        connection.execute(text(f"SET LOCAL search_path TO {SCHEMA}"))
    return bool(old)


def _old_store(connection: Connection, where: str) -> Sequence[str]:
    """Return the tables of a store of versions 1 to 5; none if there is no such store."""
    inspector = inspect(connection)
    if not inspector.has_table(_OLD_VERSION):
        return ()
    found = connection.execute(text(f"SELECT version FROM {_OLD_VERSION}")).scalars().all()  # noqa: S608 - a constant
    if len(found) != 1:
        raise StoreError(f"{where}: {_OLD_VERSION} has {len(found)} rows: expected one")
    if found[0] == _TAKEN_OVER and connection.dialect.name == "postgresql":
        return ()  # its tables were moved to the schema, which somebody has dropped
    if found[0] > _OLD_NEWEST:
        raise StoreError(
            f"{where} is a store of version {found[0]}: expected at most {_OLD_NEWEST};"
            " it was written by a newer gardener"
        )
    tables = [table for table in _OLD_TABLES if table != "holds" or inspector.has_table(table)]
    if not _are_ours(connection, tables):
        raise StoreError(
            f"{where} has a table {_OLD_VERSION}, but its other tables are not of a gardener:"
            f" expected {', '.join(tables)}"
        )
    if connection.dialect.name == "postgresql" and not inspector.has_schema(SCHEMA):
        connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
    return tables


def _are_ours(connection: Connection, tables: Collection[str]) -> bool:
    inspector = inspect(connection)
    return all(
        inspector.has_table(table)
        and _OLD_TABLES[table] in {column["name"] for column in inspector.get_columns(table)}
        for table in tables
    )
