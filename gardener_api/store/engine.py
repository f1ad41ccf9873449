"""Connections to the store's database: engines, transactions, SQLite's settings.

SQL belongs in the modules that use it.
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import ColumnElement, Connection, Dialect, Insert, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry

from gardener_api.formatting import one_line
from gardener_api.store.schema import StoreError

log = logging.getLogger(__name__)

_BUSY_SECONDS = 20  # maximum wait of a writer for the lock; parsers wait a minute for an answer
# Between two tries to get the lock. SQLite's own pauses grow to 100 ms, so that newer writers
# overtake one that has waited long: calls then take 27 ms instead of 2 ms.
_PAUSE_SECONDS = 0.001
# Pages of the write-ahead log (40 MB) between two checkpoints. A checkpoint adds 10 ms to a commit;
# with SQLite's default, 1,000 pages, one commit in 30 of a burst makes one.
_CHECKPOINT_PAGES = 10_000
_WRITES = "gardener_writes"
SCHEMA = "gardener_store"
"""Schema of the tables on PostgreSQL, so that Dagster's storage can be in the same database.

Not ``gardener``: PostgreSQL uses a schema with the name of the connected role before ``public``, so
Dagster, connected as ``gardener``, would create its tables among the store's.
"""
_CONNECT_PAUSES = (0.2, 5.0)  # seconds between two tries to connect: at first, and at most


def default_store_url(home: str | Path) -> str:
    """Return the URL of the SQLite store in a folder; its path may have any characters.

    Args:
        home: The folder, usually Dagster's home; ``~`` is expanded, as Dagster does.
    """
    file = Path(home).expanduser().absolute() / "gardener.db"
    return URL.create("sqlite", database=str(file)).render_as_string(hide_password=False)


def store_file(url: str) -> Path | None:
    """Return the file of a store in SQLite; ``None`` for a store in another database.

    Raises:
        StoreError: The URL is not a database URL.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    return Path(parsed.database)


def open_engine(url: str, *, connect_timeout: float = 0.0) -> Engine:
    """Create the engine for a store's URL, without connecting.

    Its transactions are for reads; those of ``writing(engine)`` are for writes.

    Args:
        url: ``sqlite:///path`` or ``postgresql://...`` (psycopg 3 is the driver).
        connect_timeout: Seconds that a transaction may wait for PostgreSQL to accept connections,
            for example while it restarts. After that the transaction fails with ``StoreError``.
            0: it fails at once, with SQLAlchemy's ``OperationalError``.

    Raises:
        StoreError: The URL is not that of a database that can hold a store.
    """
    parsed = _parse(url)
    match parsed.get_backend_name():
        case "sqlite":
            return _sqlite(parsed)
        case "postgresql":
            # Replace connections that the server closed while idle, so that no call fails.
            driver = parsed.set(drivername="postgresql+psycopg")
            engine = create_engine(driver, pool_pre_ping=True)
            # Insert before SQLAlchemy's own listener, which reads the current schema.
            event.listen(engine, "connect", _use_schema, insert=True)
            if connect_timeout:
                event.listen(engine, "do_connect", _reconnecting(parsed, connect_timeout))
            return engine
    shown = parsed.render_as_string(hide_password=True)
    raise StoreError(f"no store's URL: {shown}: expected sqlite:///... or postgresql://...")


def _parse(url: str) -> URL:
    try:
        return make_url(url)
    except ArgumentError as error:
        raise StoreError(f"no database URL: {url!r}: expected sqlite:///<path>") from error


def writing(engine: Engine) -> Engine:
    """Return the engine with transactions that take SQLite's write lock when they begin."""
    return engine.execution_options(**{_WRITES: True})


def upsert(
    engine: Engine,
    table: Table,
    changed: Sequence[str],
    *,
    only: ColumnElement[bool] | None = None,
    **computed: ColumnElement[Any],
) -> Insert:
    """Build an ``INSERT`` that updates the row instead if its primary key exists.

    Args:
        engine: Of the database; SQLAlchemy has an insert class per database.
        table: The table.
        changed: Columns that are updated to the values of the insert.
        only: Update only rows for which this is true.
        **computed: Columns that are updated to other expressions.
    """
    # The two classes have one interface, but no common type.
    statement: Any = (sqlite if engine.dialect.name == "sqlite" else postgresql).insert(table)
    values = {name: statement.excluded[name] for name in changed}
    keys = [column.name for column in table.primary_key]
    changing: Insert = statement.on_conflict_do_update(
        index_elements=keys, set_=values | computed, where=only
    )
    return changing


def _reconnecting(url: URL, connect_timeout: float) -> Callable[..., object]:
    where = url.render_as_string(hide_password=True)

    def connect(
        dialect: Dialect, _: object, args: Sequence[Any], options: dict[str, Any]
    ) -> object:
        pause, longest = _CONNECT_PAUSES
        begun, told = time.monotonic(), False
        while True:
            try:
                connection = dialect.connect(*args, **options)
            except dialect.loaded_dbapi.OperationalError as error:
                reason, waited = one_line(error), time.monotonic() - begun
                if waited > connect_timeout:
                    raise StoreError(
                        f"the job store {where} does not answer for {waited:.0f} s: {reason}."
                        " What to do: see whether its database runs"
                    ) from error
                if not told:
                    log.warning(
                        "the job store %s does not answer, and is waited for up to %.0f s: %s",
                        *(where, connect_timeout, reason),
                    )
                told = True
            else:
                if told:
                    log.warning("the job store answers again")
                return connection
            time.sleep(pause)
            pause = min(2 * pause, longest)

    return connect


def _use_schema(connection: psycopg.Connection[Any], _: ConnectionPoolEntry) -> None:
    connection.autocommit = True  # in a transaction, a rollback would undo it
    connection.execute(f"SET search_path TO {SCHEMA}")
    connection.autocommit = False


def _sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise StoreError(f"no store's URL: {url}: expected a file, which outlives the process")
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin)
    return engine


def _set_up(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    # sqlite3 must not begin transactions of its own: it would begin them without the lock.
    connection.isolation_level = None
    for pragma in (
        "synchronous = FULL",
        "foreign_keys = ON",
        f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
    ):
        connection.execute(f"PRAGMA {pragma}").close()
    # SQLite's timeout does not apply here: concurrent opens of a new database fail at once.
    _until_free(connection, "PRAGMA journal_mode = WAL")


def _begin(connection: Connection) -> None:
    if not connection.get_execution_options().get(_WRITES):
        connection.exec_driver_sql("BEGIN")
        return
    # A transaction that reads and then writes fails at once if another one wrote in between;
    # IMMEDIATE waits for the lock instead.
    raw: Any = connection.connection.dbapi_connection
    raw.execute("PRAGMA busy_timeout = 0").close()
    with contextlib.suppress(sqlite3.OperationalError):
        _until_free(raw, "BEGIN IMMEDIATE")
    raw.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}").close()
    if not raw.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # retry, to raise SQLAlchemy's exception


def _until_free(connection: sqlite3.Connection, statement: str) -> None:
    """Execute a statement; retry while the database is busy, for ``_BUSY_SECONDS`` at most.

    Raises:
        sqlite3.OperationalError: The database stayed busy, or the statement failed otherwise.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    while not _executed(connection, statement):
        if time.monotonic() > deadline:
            connection.execute(statement).close()
            return
        time.sleep(_PAUSE_SECONDS)


def _executed(connection: sqlite3.Connection, statement: str) -> bool:
    try:
        connection.execute(statement).close()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            return False
        raise
    return True
