"""What is in a table, partition by partition: rows, logical bytes, last change, expiration.

Kept in ``catalog.partitions`` by whoever writes rows; a table without partitions has one, with an
empty id.

Bytes are BigQuery's logical ones, https://cloud.google.com/bigquery/pricing#data: 8 for a number
or a time, 1 for a BOOL, 2 and the UTF-8 length for a STRING or BYTES, nothing for NULL, the sum of
its items for an ARRAY, of its fields for a STRUCT. Only numbers and times within arrays of records
count as if none was NULL: to look at each would take longer than to write them. Bytes are kept for
each column that is no record, so that a query is charged for the columns it reads.
"""

# ruff: noqa: S608 - this package quotes its identifiers and literals

import datetime as dt
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from gardener_dagster.local.bigquery.catalog import Catalog
from gardener_dagster.local.bigquery.database import Connection, Database
from gardener_dagster.local.bigquery.errors import not_found
from gardener_dagster.local.bigquery.schema import Field, dotted, leaves, literal, quoted
from gardener_dagster.local.bigquery.tables import Table, TableId, millis

_WIDTHS = {
    "BOOLEAN": 1, "DATE": 8, "DATETIME": 8, "FLOAT": 8, "INTEGER": 8, "INTERVAL": 16,
    "NUMERIC": 16, "BIGNUMERIC": 32, "TIME": 8, "TIMESTAMP": 8,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Content:
    """What is in some partitions, taken together.

    Attributes:
        partitions: how many there are.
        bytes: logical ones, of all columns.
    """

    partitions: int
    rows: int
    bytes: int


def content(connection: Connection, table: Table, only: str = "") -> Content:
    """What is in a table, or in one partition of it; nothing if there is no such partition."""
    [partitions, rows, size] = connection.execute(
        "SELECT count(*), sum(row_count), sum(list_sum(map_values(bytes)))"
        f" FROM catalog.partitions WHERE store = ? {_only([only] if only else None)}",
        [table.store],
    ).fetchone() or (0, 0, 0)
    return Content(partitions=partitions, rows=int(rows or 0), bytes=int(size or 0))


def partition_ids(connection: Connection, table: Table) -> list[str]:
    """Ids of the partitions of a table."""
    rows = connection.execute(
        "SELECT id FROM catalog.partitions WHERE store = ? ORDER BY id", [table.store]
    ).fetchall()
    return [one for (one,) in rows]


def bytes_read(
    connection: Connection, table: Table, ids: Collection[str], columns: Collection[str]
) -> int:
    """Logical bytes of some columns in some partitions.

    Args:
        connection: to the catalog.
        table: that is read.
        ids: of its partitions.
        columns: like ``id``, ``parser.Time``, or ``parser`` for all of its fields.
    """
    rows = connection.execute(
        "SELECT entry.key, sum(entry.value) FROM (SELECT unnest(map_entries(bytes)) AS entry"
        f" FROM catalog.partitions WHERE store = ? {_only(ids)}) GROUP BY 1",
        [table.store],
    ).fetchall()
    low = {column.lower() for column in columns}
    return sum(int(size) for path, size in rows if _prefixes(path.lower()) & low)


def _prefixes(path: str) -> set[str]:
    parts = path.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts) + 1)}


def _only(ids: Collection[str] | None) -> str:
    """DuckDB's condition for some partitions; ``None``: for all."""
    return "" if ids is None else f"AND id IN ({', '.join(map(literal, ids)) or 'NULL'})"


def measure(
    connection: Connection, table: Table, now: dt.datetime, ids: Sequence[str] | None = None
) -> None:
    """Takes a table's partitions anew, after its rows have changed.

    Args:
        connection: the transaction.
        table: as it is now.
        now: the time, of their last change.
        ids: those that were written; ``None``: all.
    """
    connection.execute(
        f"DELETE FROM catalog.partitions WHERE store = ? {_only(ids)}", [table.store]
    )
    partitioning, fields = table.partitioning, table.fields
    key, condition = "''", "TRUE"
    if partitioning is not None:
        key = partitioning.id_sql
        if ids is not None:
            condition = " OR ".join(partitioning.where(one) for one in ids) or "FALSE"
    measures = [_measure(path) for path in leaves(fields)]
    sums = list(dict.fromkeys(sql for sql, _ in measures))
    found = connection.execute(
        f"SELECT {', '.join([key, 'COUNT(*)', *sums])} FROM {table.store} WHERE {condition}"
        f"{' GROUP BY 1' if partitioning else ''}"
    ).fetchall()
    names = [dotted(path) for path in leaves(fields)]
    for one, count, *values in found:
        by_sql = dict(zip(sums, values, strict=True))
        sizes = [int(by_sql[sql] or 0) * factor for sql, factor in measures]
        expires = partitioning.expires(one) if partitioning else None
        connection.execute(
            "INSERT INTO catalog.partitions VALUES (?, ?, ?, MAP(?, ?), ?, ?)",
            [
                table.store,
                one,
                count,
                names,
                sizes,
                millis(now),
                None if expires is None else millis(expires),
            ],
        )


def _measure(path: Sequence[Field]) -> tuple[str, int]:
    """An aggregate, and the bytes that each unit of it is, for a column that is no record."""
    leaf = path[-1]
    width = _WIDTHS.get(leaf.type, 0)
    if not any(field.repeated for field in path):
        value = ".".join(quoted(field.name) for field in path)
        return (f"COUNT({value})", width) if width else (f"SUM({_text_size(leaf, value)})", 1)
    if not width:
        return f"SUM({_nested(path, lambda value: _text_size(leaf, value))})", 1
    last = max(index for index, field in enumerate(path) if field.repeated)
    return f"SUM({_nested(path[: last + 1], None)})", width


def _text_size(field: Field, value: str) -> str:
    length = "octet_length" if field.type == "BYTES" else "strlen"
    return f"({length}({value}) + 2)"


def _nested(
    path: Sequence[Field], size: Callable[[str], str] | None, value: str = "", depth: int = 0
) -> str:
    """The sum over the items of a path's arrays; without a size, their number."""
    field = path[0]
    value = f"{value}.{quoted(field.name)}" if value else quoted(field.name)
    rest = path[1:]
    if not field.repeated:
        return _nested(rest, size, value, depth) if rest else size(value) if size else "1"
    if not rest and size is None:
        return f"len({value})"
    item = f"x{depth}"
    inner = _nested(rest, size, item, depth + 1) if rest else size(item) if size else "1"
    return f"list_sum(list_transform({value}, lambda {item}: {inner}))"


def delete_partition(
    connection: Connection, catalog: Catalog, table: TableId, now: dt.datetime
) -> None:
    """Deletes the rows of one partition.

    Raises:
        BigQueryError: there is no such table, or no such partition.
    """
    found = catalog.table(connection, table)
    condition = found.where(table.partition)
    if not content(connection, found, table.partition).partitions:
        raise not_found("Table", table)
    _remove(connection, found, [table.partition], condition)
    catalog.touched(connection, found, now)


def _remove(connection: Connection, table: Table, ids: Sequence[str], condition: str) -> None:
    connection.execute(f"DELETE FROM {table.store} WHERE {condition}")
    connection.execute(
        f"DELETE FROM catalog.partitions WHERE store = ? {_only(ids)}", [table.store]
    )


def reset_expirations(connection: Connection, table: Table) -> None:
    """After a change of the table's partition expiration."""
    partitioning = table.partitioning
    if partitioning is None:
        return
    for partition in partition_ids(connection, table):
        expires = partitioning.expires(partition)
        connection.execute(
            "UPDATE catalog.partitions SET expires = ? WHERE store = ? AND id = ?",
            [None if expires is None else millis(expires), table.store, partition],
        )


def expire(database: Database, catalog: Catalog, now: dt.datetime) -> None:
    """Deletes tables and partitions whose time is up; called before they are looked at."""
    with database.cursor() as cursor:
        due = cursor.execute(
            "SELECT 1 FROM catalog.tables WHERE expires <= $now UNION ALL"
            " SELECT 1 FROM catalog.partitions WHERE expires <= $now LIMIT 1",
            {"now": millis(now)},
        ).fetchone()
    if not due:
        return
    with database.writing() as connection:
        tables = connection.execute(
            "SELECT project, dataset, name FROM catalog.tables WHERE expires <= ?", [millis(now)]
        ).fetchall()
        for project, dataset, name in tables:
            one = TableId(project=project, dataset=dataset, name=name)
            catalog.delete_table(connection, catalog.table(connection, one))
        rows = connection.execute(
            "SELECT project, dataset, name, list(id) FROM catalog.partitions"
            " JOIN catalog.tables USING (store) WHERE partitions.expires <= ? GROUP BY ALL",
            [millis(now)],
        ).fetchall()
        for project, dataset, name, ids in rows:
            table = catalog.table(connection, TableId(project=project, dataset=dataset, name=name))
            _remove(connection, table, ids, " OR ".join(table.where(one) for one in ids))
