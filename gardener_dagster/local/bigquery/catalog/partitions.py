"""Rows and bytes of each partition, in ``catalog.partitions``.

Every job that writes rows updates the counts of the partition that it wrote. An unpartitioned
table has one partition with an empty id.

Bytes are estimated for each top-level column: the UTF-8 length of a STRING, and 8 for each other
value and each array item. NULL has none.
"""

# ruff: noqa: S608 - this package quotes its identifiers and literals

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass

from gardener_dagster.local.bigquery.catalog.catalog import Catalog
from gardener_dagster.local.bigquery.catalog.database import Connection, Database
from gardener_dagster.local.bigquery.catalog.schema import Field, flat_columns, literal
from gardener_dagster.local.bigquery.catalog.table import Table, TableId, millis
from gardener_dagster.local.bigquery.errors import not_found


@dataclass(frozen=True, kw_only=True)
class Content:
    """Counts of rows and bytes in a set of partitions.

    Attributes:
        partitions: number of partitions that exist.
        bytes: estimated bytes of all columns.
    """

    partitions: int
    rows: int
    bytes: int


def content(connection: Connection, table: Table, partition: str = "") -> Content:
    """Return the counts of a table, or of one of its partitions."""
    only = f"AND id = {literal(partition)}" if partition else ""
    [partitions, rows, size] = connection.execute(
        "SELECT count(*), sum(row_count), sum(list_sum(map_values(bytes)))"
        f" FROM catalog.partitions WHERE store = ? {only}",
        [table.store],
    ).fetchone() or (0, 0, 0)
    return Content(partitions=partitions, rows=int(rows or 0), bytes=int(size or 0))


def bytes_of(
    connection: Connection, table: Table, ids: Collection[str], columns: Collection[str]
) -> int:
    """Sum up the bytes of some top-level columns in some partitions.

    Args:
        connection: connection to the catalog.
        table: the table that is read.
        ids: ids of its partitions.
        columns: their names, in lower case.
    """
    listed = ", ".join(map(literal, ids)) or "NULL"
    rows = connection.execute(
        "SELECT entry.key, sum(entry.value) FROM (SELECT unnest(map_entries(bytes)) AS entry"
        f" FROM catalog.partitions WHERE store = ? AND id IN ({listed})) GROUP BY 1",
        [table.store],
    ).fetchall()
    return sum(int(size) for name, size in rows if name.lower() in columns)


def measure(connection: Connection, table: Table, partition: str, now: dt.datetime) -> None:
    """Update the counts of a partition after its rows have changed.

    Args:
        connection: the transaction that changed them.
        table: the table, with its current schema.
        partition: id of the changed partition; empty: the table is unpartitioned.
        now: the time of the change.
    """
    _forget(connection, table, partition)
    sizes = [
        " + ".join(f"COALESCE({_size(*column)}, 0)" for column in flat_columns([field]))
        for field in table.fields
    ]
    [rows, *values] = connection.execute(
        f"SELECT {', '.join(['COUNT(*)', *sizes])} FROM {table.store}"
        f" WHERE {table.where(partition)}"
    ).fetchone() or (0,)
    if partition and not rows:
        return
    connection.execute(
        "INSERT INTO catalog.partitions (store, id, row_count, bytes, modified)"
        " VALUES (?, ?, ?, MAP(?, ?), ?)",
        [table.store, partition, rows, [f.name for f in table.fields], values, millis(now)],
    )


def _size(path: str, field: Field) -> str:
    """Return DuckDB's aggregate for the bytes of a column."""
    if field.repeated:
        return f"8 * SUM(len({path}))"
    return f"SUM(strlen({path}))" if field.type == "STRING" else f"8 * COUNT({path})"


def _forget(connection: Connection, table: Table, partition: str) -> None:
    connection.execute(
        "DELETE FROM catalog.partitions WHERE store = ? AND id = ?", [table.store, partition]
    )


def delete_partition(
    connection: Connection, catalog: Catalog, table: TableId, now: dt.datetime
) -> None:
    """Delete the rows of one partition.

    Raises:
        BigQueryError: the table or the partition does not exist.
    """
    found = catalog.table(connection, table)
    condition = found.where(table.partition)
    if not content(connection, found, table.partition).partitions:
        raise not_found("Table", table)
    connection.execute(f"DELETE FROM {found.store} WHERE {condition}")
    _forget(connection, found, table.partition)
    catalog.touch(connection, found, now)


def drop_expired_tables(database: Database, catalog: Catalog, now: dt.datetime) -> None:
    """Delete the tables whose ``expirationTime`` has passed. Call this before reading tables."""
    due = "SELECT project, dataset, name FROM catalog.tables WHERE expires <= ?"
    with database.cursor() as cursor:
        if cursor.execute(due, [millis(now)]).fetchone() is None:
            return
    with database.writing() as connection:
        for project, dataset, name in connection.execute(due, [millis(now)]).fetchall():
            one = TableId(project=project, dataset=dataset, name=name)
            catalog.delete_table(connection, catalog.table(connection, one))
