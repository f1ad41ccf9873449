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
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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
class Partition:
    """One partition as the catalog has it.

    Attributes:
        bytes: by column, like ``parser.Time``.
        modified: milliseconds.
    """

    id: str
    rows: int
    bytes: Mapping[str, int]
    modified: int

    @property
    def size(self) -> int:
        """Bytes of all columns."""
        return sum(self.bytes.values())

    def size_of(self, columns: Collection[str]) -> int:
        """Bytes of some columns; of all fields of a record that is among them."""
        low = {column.lower() for column in columns}
        return sum(size for path, size in self.bytes.items() if _prefixes(path.lower()) & low)


def _prefixes(path: str) -> set[str]:
    parts = path.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts) + 1)}


def partitions_of(connection: Connection, table: Table, only: str = "") -> list[Partition]:
    """The partitions of a table, or the one of that id."""
    condition = f" AND id = {literal(only)}" if only else ""
    rows = connection.execute(
        "SELECT id, row_count, bytes, modified FROM catalog.partitions"
        f" WHERE store = ?{condition} ORDER BY id",
        [table.store],
    ).fetchall()
    return [
        Partition(id=one, rows=count, bytes=dict(size), modified=modified)
        for one, count, size, modified in rows
    ]


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
    only = "" if ids is None else f" AND id IN ({_list(ids)})"
    connection.execute(f"DELETE FROM catalog.partitions WHERE store = ?{only}", [table.store])
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


def _list(ids: Iterable[str]) -> str:
    return ", ".join(literal(one) for one in ids) or "NULL"


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
    if not partitions_of(connection, found, table.partition):
        raise not_found("Table", table)
    _remove(connection, found, [table.partition], condition)
    catalog.touched(connection, found, now)


def _remove(connection: Connection, table: Table, ids: Sequence[str], condition: str) -> None:
    connection.execute(f"DELETE FROM {table.store} WHERE {condition}")
    connection.execute(
        f"DELETE FROM catalog.partitions WHERE store = ? AND id IN ({_list(ids)})", [table.store]
    )


def reset_expirations(connection: Connection, table: Table) -> None:
    """After a change of the table's partition expiration."""
    partitioning = table.partitioning
    if partitioning is None:
        return
    for partition in partitions_of(connection, table):
        expires = partitioning.expires(partition.id)
        connection.execute(
            "UPDATE catalog.partitions SET expires = ? WHERE store = ? AND id = ?",
            [None if expires is None else millis(expires), table.store, partition.id],
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
