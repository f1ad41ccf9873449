"""The DuckDB file: settings, transactions, and the tables of the catalog.

Rows, catalog and jobs are in one file, so one transaction writes a job's rows and its final state.
They stay consistent if the server is killed.
"""

import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

Connection = duckdb.DuckDBPyConnection

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "memory_limit": "1GB",  # enough to join a date of a million rows; 512 MB are not
    "threads": "2",
    "autoinstall_known_extensions": "false",
}
_LAYOUT = """
CREATE SCHEMA IF NOT EXISTS catalog;
CREATE SCHEMA IF NOT EXISTS store;
CREATE TABLE IF NOT EXISTS catalog.datasets (project VARCHAR, dataset VARCHAR, resource VARCHAR);
CREATE TABLE IF NOT EXISTS catalog.tables (
  project VARCHAR, dataset VARCHAR, name VARCHAR, store VARCHAR, expires BIGINT, resource VARCHAR);
CREATE TABLE IF NOT EXISTS catalog.partitions (
  store VARCHAR, id VARCHAR, row_count BIGINT, bytes MAP(VARCHAR, BIGINT), modified BIGINT);
CREATE TABLE IF NOT EXISTS catalog.jobs (
  project VARCHAR, id VARCHAR, ended BOOLEAN, resource VARCHAR);
-- Lets DuckDB bind the calls that sql.json_text has not replaced yet.
CREATE OR REPLACE MACRO bq_to_json_string(x) AS CAST(to_json(x) AS VARCHAR);
"""
# No primary keys: DuckDB's indexes do not let a transaction delete and insert the same key. All
# tables but catalog.jobs have one writer at a time, and each job has one thread.


class DatabaseInUse(Exception):
    """Another process uses the data folder."""


class Database:
    """The DuckDB file of one server.

    Args:
        folder: folder of all data; created if missing.

    Raises:
        DatabaseInUse: another process uses the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.scratch = self.folder / "scratch"
        shutil.rmtree(self.scratch, ignore_errors=True)  # leftovers of a server that was killed
        self.scratch.mkdir(parents=True)
        try:
            self._root = duckdb.connect(
                str(self.folder / "bigquery.duckdb"),
                config=_CONFIG | {"temp_directory": str(self.folder / "spill")},
            )
        except duckdb.IOException as error:
            if "lock" not in str(error):
                raise
            raise DatabaseInUse(f"{self.folder} is in use by another process: {error}") from error
        # Queries may read only the files that the server writes to the scratch folder.
        self._root.execute(f"SET allowed_directories = ['{self.scratch}']")
        self._root.execute("SET enable_external_access = false")
        self._root.execute("SET GLOBAL TimeZone = 'UTC'")
        self._root.execute(_LAYOUT)
        self._drop_orphans()
        self._writer = threading.RLock()

    def close(self) -> None:
        """Close the file."""
        self._root.close()

    @contextmanager
    def cursor(self) -> Iterator[Connection]:
        """Open a connection for one thread; each statement is its own transaction."""
        cursor = self._root.cursor()
        try:
            yield cursor
        finally:
            cursor.close()  # rolls back an uncommitted transaction

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a connection that reads one snapshot of the data."""
        with self.cursor() as cursor:
            cursor.begin()
            yield cursor

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that is committed at the end, and rolled back on an error.

        Only one is open at a time. Do long work before it, in a staging table.
        """
        with self._writer, self.cursor() as cursor:
            cursor.begin()
            yield cursor
            cursor.commit()

    @staticmethod
    def new_store() -> str:
        """Return a new name for a DuckDB table of rows."""
        return f"store.t_{uuid.uuid4().hex}"

    @contextmanager
    def staging(self) -> Iterator[str]:
        """Yield a name for a staging table; drop the table unless the catalog now refers to it."""
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
        """Drop the staging tables of a server that was killed."""
        orphans = self._root.execute(
            "SELECT 'store.' || table_name FROM duckdb_tables() WHERE schema_name = 'store'"
            " AND 'store.' || table_name NOT IN (SELECT store FROM catalog.tables)"
        ).fetchall()
        for (store,) in orphans:
            self._root.execute(f"DROP TABLE {store}")
