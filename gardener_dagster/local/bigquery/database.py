"""One DuckDB file: its settings, its transactions, and the schema of the catalog within.

Rows, catalog and ended jobs are in the same file, so that one transaction covers what belongs
together, and a kill at any moment leaves it all agreeing. Nothing here knows what is in it.
"""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

Connection = duckdb.DuckDBPyConnection

_LAYOUT = """
CREATE SCHEMA IF NOT EXISTS catalog;
CREATE SCHEMA IF NOT EXISTS store;
CREATE TABLE IF NOT EXISTS catalog.datasets (project VARCHAR, dataset VARCHAR, resource VARCHAR);
CREATE TABLE IF NOT EXISTS catalog.tables (
  project VARCHAR, dataset VARCHAR, name VARCHAR, store VARCHAR, expires BIGINT, resource VARCHAR);
CREATE TABLE IF NOT EXISTS catalog.partitions (
  store VARCHAR, id VARCHAR, row_count BIGINT, bytes MAP(VARCHAR, BIGINT), modified BIGINT,
  expires BIGINT);
CREATE TABLE IF NOT EXISTS catalog.jobs (
  project VARCHAR, id VARCHAR, created BIGINT, ended BOOLEAN, parent VARCHAR, resource VARCHAR);
"""
# No primary keys: catalog.* but jobs has one writer at a time, and a job one thread; DuckDB's
# indexes do not let a transaction delete and insert the same key.


class DatabaseInUse(Exception):
    """Another process has the data folder open."""


class Database:
    """The rows, the catalog and the jobs of one server.

    Args:
        folder: for everything; made if missing.
        memory_limit: of DuckDB, like ``512MB``; beyond it, it spills to the folder.
        threads: of DuckDB.

    Raises:
        DatabaseInUse: another process has the folder.
    """

    def __init__(self, folder: Path, *, memory_limit: str = "512MB", threads: int = 2) -> None:
        self.folder = folder.resolve()
        self.scratch = self.folder / "scratch"
        self.scratch.mkdir(parents=True, exist_ok=True)
        for leftover in self.scratch.iterdir():
            leftover.unlink()
        try:
            self._root = duckdb.connect(
                str(self.folder / "bigquery.duckdb"),
                config={
                    "memory_limit": memory_limit,
                    "threads": str(threads),
                    "temp_directory": str(self.folder / "spill"),
                    "autoinstall_known_extensions": "false",
                },
            )
        except duckdb.IOException as error:
            if "lock" not in str(error):
                raise
            raise DatabaseInUse(f"{self.folder} is in use by another process: {error}") from error
        # A query may read its tables, not the machine's files.
        self._root.execute(f"SET allowed_directories = ['{self.scratch}']")
        self._root.execute("SET enable_external_access = false")
        self._root.execute("SET GLOBAL TimeZone = 'UTC'")
        self._root.execute(_LAYOUT)
        self._drop_orphans()
        self._writer = threading.RLock()

    def close(self) -> None:
        """Ends everything that still uses it."""
        self._root.close()

    @contextmanager
    def cursor(self) -> Iterator[Connection]:
        """A connection for one thread, each statement its own transaction."""
        cursor = self._root.cursor()
        try:
            yield cursor
        finally:
            cursor.close()  # rolls back what was not committed

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection that sees the data as they are now, whatever is written meanwhile."""
        with self.cursor() as cursor:
            cursor.begin()
            yield cursor

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction, one at a time: committed at the end, rolled back on an error.

        Whoever needs long prepares a table (:meth:`new_store`) outside of it.
        """
        with self._writer, self.cursor() as cursor:
            cursor.begin()
            yield cursor
            cursor.commit()

    @staticmethod
    def new_store() -> str:
        """A name for a new table of rows, in DuckDB's SQL."""
        return f"store.t_{uuid.uuid4().hex}"

    @contextmanager
    def staging(self) -> Iterator[str]:
        """A name for a table that is dropped in the end, unless it became a table's rows."""
        store = self.new_store()
        try:
            yield store
        finally:
            with self.cursor() as cursor:
                [adopted] = cursor.execute(
                    "SELECT count(*) FROM catalog.tables WHERE store = ?", [store]
                ).fetchone() or (0,)
                if not adopted:
                    cursor.execute(f"DROP TABLE IF EXISTS {store}")

    def _drop_orphans(self) -> None:
        """Drops what a killed server had staged."""
        orphans = self._root.execute(
            "SELECT 'store.' || table_name FROM duckdb_tables() WHERE schema_name = 'store'"
            " AND 'store.' || table_name NOT IN (SELECT store FROM catalog.tables)"
        ).fetchall()
        for (store,) in orphans:
            self._root.execute(f"DROP TABLE {store}")
