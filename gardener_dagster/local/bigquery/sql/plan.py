"""Bind a query to the tables: what it reads, the schema of its result, and DuckDB's SQL for it.

Bytes processed are the bytes of the columns that the query reads, in the partitions that match its
partition filters. ``catalog.partitions`` describes how bytes are estimated.
"""

# ruff: noqa: S608 - this package quotes its identifiers and literals

import re
from dataclasses import dataclass

import duckdb
from duckdb.sqltypes import DuckDBPyType
from sqlglot import exp

from gardener_dagster.local.bigquery.catalog.catalog import Catalog
from gardener_dagster.local.bigquery.catalog.database import Connection
from gardener_dagster.local.bigquery.catalog.partitions import bytes_of
from gardener_dagster.local.bigquery.catalog.schema import Fields, quoted, result_field
from gardener_dagster.local.bigquery.catalog.table import Resource, TableId
from gardener_dagster.local.bigquery.errors import BigQueryError, invalid_query
from gardener_dagster.local.bigquery.sql.json_text import write_out
from gardener_dagster.local.bigquery.sql.partition_filters import find_filters, partitions_read
from gardener_dagster.local.bigquery.sql.scans import bind
from gardener_dagster.local.bigquery.sql.translate import duckdb_sql

_MISSING_COLUMN = re.compile(
    r'Referenced (?:column|table) "([^"]+)"|Column "([^"]+)" referenced that exists in the SELECT'
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A query, bound to tables.

    Attributes:
        sql: the query in DuckDB's SQL.
        fields: schema of the result.
        tables: the tables that it reads, as ``TableReference`` resources.
        partitions: number of partitions that it reads.
        bytes: bytes processed.
    """

    sql: str
    fields: Fields
    tables: list[Resource]
    partitions: int
    bytes: int

    def create_sql(self, store: str) -> str:
        """Return DuckDB's statement that stores the result in a table, with BigQuery's types."""
        columns = ", ".join(
            f"CAST({quoted(field.name)} AS {field.duckdb_type}) AS {quoted(field.name)}"
            for field in self.fields
        )
        return f"CREATE TABLE {store} AS SELECT {columns} FROM ({self.sql})"


def make_plan(tree: exp.Expr, connection: Connection, catalog: Catalog, default: TableId) -> Plan:
    """Bind a query.

    Args:
        tree: the query; modified in place.
        connection: connection with the transaction that the query will run in.
        catalog: the catalog of the tables.
        default: default project and dataset of tables.

    Raises:
        BigQueryError: the query is invalid, or lacks a required partition filter.
    """
    scans = bind(tree, connection, catalog, default)
    partitions: dict[str, set[str]] = {}
    for scan in scans:
        read = partitions_read(scan, find_filters(scan), connection)
        partitions.setdefault(scan.table.store, set()).update(read)
    by_store = {scan.table.store: scan for scan in scans}
    size = sum(
        bytes_of(connection, scan.table, partitions[store], scan.columns(tree))
        for store, scan in by_store.items()
    )

    def type_of(sql: str) -> DuckDBPyType:
        return connection.sql(sql).types[0]  # bound, not run

    write_out(tree, type_of)
    sql = duckdb_sql(tree)
    return Plan(
        sql=sql,
        fields=_result_fields(connection, sql),
        tables=[scan.table.id.reference for scan in by_store.values()],
        partitions=sum(map(len, partitions.values())),
        bytes=size,
    )


def _result_fields(connection: Connection, sql: str) -> Fields:
    result = connection.sql(sql)  # bound, not run
    names = [name.lower() for name in result.columns]
    for name in result.columns:
        if names.count(name.lower()) > 1:
            raise invalid_query(
                "Duplicate column names in the result are not supported."
                f" Found duplicate(s): {name}"
            )
    columns = zip(result.columns, result.types, strict=True)
    return tuple(result_field(name, kind) for name, kind in columns)


def query_error(error: duckdb.Error) -> BigQueryError:
    """Translate DuckDB's error about a query to BigQuery's."""
    text = str(error)
    if match := _MISSING_COLUMN.search(text):
        return invalid_query(f"Unrecognized name: {match[1] or match[2]}")
    return invalid_query(text.split("\n\n")[0].split("LINE 1:")[0].strip())
