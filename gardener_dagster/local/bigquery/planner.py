"""What a query would read and give, without reading: asked of an empty DuckDB.

DuckDB's plan names, for each scan, the columns that are used, down to the fields of records. On
empty tables and without the optimizations that look at data or move filters, that depends on the
query alone. Disabling them is a setting of a whole database; hence one of its own.
"""

import json
import re
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import duckdb

from gardener_dagster.local.bigquery.errors import invalid_query
from gardener_dagster.local.bigquery.functions import install
from gardener_dagster.local.bigquery.schema import Field, Fields, column_list, result_field
from gardener_dagster.local.bigquery.tables import Table

_OFF = "statistics_propagation,filter_pushdown,filter_pullup,expression_rewriter"
_MISSING_COLUMN = re.compile(
    r'Referenced (?:column|table) "([^"]+)"|Column "([^"]+)" referenced that exists in the SELECT'
)


class Planner:
    """An empty database that knows tables when they are asked about."""

    def __init__(self) -> None:
        self._connection = duckdb.connect(":memory:", config={"threads": "1"})
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute(f"SET disabled_optimizers = '{_OFF}'")
        self._connection.execute("CREATE SCHEMA store; CREATE SCHEMA catalog")
        self._connection.execute(
            "CREATE TABLE catalog.tables (project VARCHAR, dataset VARCHAR, name VARCHAR,"
            " store VARCHAR); CREATE TABLE catalog.partitions (store VARCHAR, id VARCHAR,"
            " row_count BIGINT, bytes MAP(VARCHAR, BIGINT), modified BIGINT)"
        )
        install(self._connection)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Ends it."""
        self._connection.close()

    def fields(self, sql: str, tables: Iterable[Table]) -> Fields:
        """The schema of a query's result.

        Raises:
            BigQueryError: the query is wrong.
        """
        with self._lock, _Tables(self._connection, tables):
            try:
                result = self._connection.sql(sql)  # bound, not run
                columns = list(zip(result.columns, result.types, strict=True))
            except duckdb.Error as error:
                raise query_error(error) from error
        fields: list[Field] = []
        seen: set[str] = set()
        for name, kind in columns:
            if name.lower() in seen:
                raise invalid_query(
                    "Duplicate column names in the result are not supported."
                    f" Found duplicate(s): {name}"
                )
            seen.add(name.lower())
            fields.append(result_field(name, kind))
        return tuple(fields)

    def columns(self, sql: str, tables: Iterable[Table]) -> Mapping[str, set[str]]:
        """The columns that a statement reads, by DuckDB table; records in full or by field.

        Raises:
            BigQueryError: the statement is wrong.
        """
        with self._lock, _Tables(self._connection, tables):
            try:
                row = self._connection.execute(f"EXPLAIN (FORMAT json) {sql}").fetchone()
            except duckdb.Error as error:
                raise query_error(error) from error
        found: dict[str, set[str]] = {}
        for node in json.loads(row[1]) if row else ():
            _collect(node, found)
        return found


class _Tables:
    """The tables are there, empty, within the context."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, tables: Iterable[Table]) -> None:
        self._connection = connection
        self._tables = {table.store: table for table in tables}

    def __enter__(self) -> None:
        for store, table in self._tables.items():
            self._connection.execute(f"CREATE TABLE {store} ({column_list(table.fields)})")

    def __exit__(self, *_: object) -> None:
        for store in self._tables:
            self._connection.execute(f"DROP TABLE {store}")


def _collect(node: Mapping[str, Any], found: dict[str, set[str]]) -> None:
    info = node["extra_info"]
    name = str(info.get("Table", ""))
    if name:
        columns = info.get("Projections") or []
        store = ".".join(name.split(".")[-2:])
        found.setdefault(store, set()).update([columns] if isinstance(columns, str) else columns)
    for child in node["children"]:
        _collect(child, found)


def query_error(error: duckdb.Error) -> Exception:
    """DuckDB's complaint about a query, as BigQuery's."""
    text = str(error)
    if match := _MISSING_COLUMN.search(text):
        return invalid_query(f"Unrecognized name: {match[1] or match[2]}")
    if match := re.search(r"Function with name (\S+) does not exist", text):
        return invalid_query(f"Function not found: {match[1]}")
    return invalid_query(text.split("\n\n")[0].split("LINE 1:")[0].strip())
