"""Bringing a store to the version that this gardener reads and writes.

The steps are in ``migrations``, run by alembic. Here: which version a database has, whether it is
a store at all, and taking over stores that were made before alembic did it. Those count their
versions in a table ``gardener_version``; on PostgreSQL they are in the schema of the connection,
usually ``public``, from where their tables are moved to ``SCHEMA``.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, func, inspect, select, text
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError

from gardener_api.formatting import one_line
from gardener_api.store.engine import SCHEMA
from gardener_api.store.schema import NEWEST, StoreError, version

_LOCK = 7_034_186_292_514_233  # of PostgreSQL; any number that no other user of the database takes
_SCRIPTS = "gardener_api.store:migrations"
_OLD_VERSION = "gardener_version"
_OLD_NEWEST = 5
# In a store that was taken over, so that an older gardener refuses it instead of starting anew.
_TAKEN_OVER = 6
_OLD_TABLES = {
    "jobs": "wire_id",
    "requests": "covers_tables",
    "events": "left",
    "partitions": "day_before",
    "operations": "bq_job_ids",
    "holds": "since",
}
"""The tables of the versions 1 to 5, each with a column that tells it from one of that name."""


def prepare(engine: Engine, *, may_migrate: bool = True) -> None:
    """Bring a store to the newest version, if it is not there already.

    Args:
        engine: Whose transactions can write.
        may_migrate: Whether an older store is migrated and a missing one made; else it is refused.

    Raises:
        StoreError: See ``migrate``; or the store is not of the newest version, and may not be
            migrated.
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
    """Make the tables in an empty database, or bring an older store to the newest version.

    One transaction: a failure changes nothing. Processes that start together do it one by one.

    Args:
        engine: Whose transactions can write.

    Returns:
        The version that the store had; ``None`` if there was none.

    Raises:
        StoreError: The database cannot be read, holds something else, or was written by a newer
            gardener.
    """
    try:
        with engine.begin() as connection:
            # SQLite's write lock, which the transaction has, orders several processes.
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
    """The revision that alembic noted; ``None`` where it never noted one."""
    if not inspect(connection).has_table(version.name):
        return None
    found = connection.execute(select(version.c.version_num)).scalars().all()
    return str(found[0]) if len(found) == 1 else ""


def _migrate(connection: Connection, where: str) -> str | None:
    # Loading alembic takes 0.2 s, and nearly every start finds the newest version.
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
    """Make a store of the versions 1 to 5 one that alembic can migrate.

    Returns:
        Whether there was such a store.
    """
    on_postgresql = connection.dialect.name == "postgresql"
    if on_postgresql:
        # As it is for a connection that nobody has changed: older gardeners used the default.
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
    """The tables of a store of the versions 1 to 5; none where there is no such store."""
    inspector = inspect(connection)
    if not inspector.has_table(_OLD_VERSION):
        return ()
    found = connection.execute(text(f"SELECT version FROM {_OLD_VERSION}")).scalars().all()  # noqa: S608 - a constant
    if len(found) != 1:
        raise StoreError(f"{where}: {_OLD_VERSION} has {len(found)} rows: expected one")
    if found[0] == _TAKEN_OVER and connection.dialect.name == "postgresql":
        return ()  # its tables went to the schema, which somebody has removed
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
