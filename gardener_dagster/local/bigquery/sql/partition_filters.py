"""Partition filters: conditions of a query that leave out partitions of a table.

https://cloud.google.com/bigquery/docs/querying-partitioned-tables. A condition is a filter if it
compares the bare partitioning column with constants, in the WHERE of the SELECT that reads the
table, or in the ON of one of its joins. BigQuery also finds filters outside of a subquery; these
are not found here, so the query is refused if the table requires a filter.
"""

# ruff: noqa: S608 - this package quotes its identifiers and literals

from collections.abc import Iterator, Sequence

from sqlglot import exp

from gardener_dagster.local.bigquery.catalog.database import Connection
from gardener_dagster.local.bigquery.errors import invalid_query
from gardener_dagster.local.bigquery.sql.scans import Scan
from gardener_dagster.local.bigquery.sql.translate import duckdb_sql

_COMPARISONS = (exp.EQ, exp.LT, exp.LTE, exp.GT, exp.GTE)


def find_filters(scan: Scan) -> list[exp.Expr]:
    """Find the partition filters of a table.

    Raises:
        BigQueryError: the table requires a filter, and there is none.
    """
    partitioning = scan.table.partitioning
    select = scan.node.find_ancestor(exp.Select)
    if partitioning is None or select is None:
        return []
    alias, column = scan.node.alias.lower(), partitioning.column.name.lower()
    found = [
        condition
        for condition in _conditions(select, scan.node)
        if _is_filter(condition, alias, column)
    ]
    if scan.table.resource.get("requirePartitionFilter") and not found:
        name = f"{scan.table.id.dataset}.{scan.table.id.name}"
        raise invalid_query(
            f"Cannot query over table '{name}' without a filter over column(s)"
            f" '{partitioning.column.name}' that can be used for partition elimination"
        )
    return found


def partitions_read(scan: Scan, filters: Sequence[exp.Expr], connection: Connection) -> list[str]:
    """Return the ids of the partitions that a query reads.

    Args:
        scan: the reference to the table in the query.
        filters: the partition filters of the scan.
        connection: connection to the database.
    """
    partitioning = scan.table.partitioning
    if partitioning is None:
        return [""]
    conditions = [f"({duckdb_sql(_unqualified(one))})" for one in filters]
    rows = connection.execute(
        f"SELECT DISTINCT {partitioning.id_sql} FROM {scan.table.store}"
        f" WHERE {' AND '.join(conditions) or 'TRUE'}"
    ).fetchall()
    return [one for (one,) in rows]


def _unqualified(condition: exp.Expr) -> exp.Expr:
    copy = condition.copy()
    for column in copy.find_all(exp.Column):
        column.set("table", None)
    return copy


def _conditions(select: exp.Select, source: exp.Table) -> Iterator[exp.Expr]:
    """Yield the WHERE and ON conditions that restrict the rows read from the source."""
    where = select.args.get("where")
    if where is not None:
        yield from where.this.flatten() if isinstance(where.this, exp.And) else [where.this]
    for join in select.args.get("joins") or ():
        on, side = join.args.get("on"), join.side.upper()
        if on is not None and (not side or (side == "LEFT" and join.this is source)):
            yield from on.flatten() if isinstance(on, exp.And) else [on]


def _is_filter(node: exp.Expr, alias: str, column: str) -> bool:
    """Whether a condition is a comparison of the column with constants."""
    if isinstance(node, exp.Paren):
        return _is_filter(node.this, alias, column)
    if isinstance(node, exp.Or):
        return all(_is_filter(one, alias, column) for one in node.flatten())
    if node.find(exp.Query) is not None or not all(
        _is_column(one, alias, column) for one in node.find_all(exp.Column)
    ):
        return False
    if isinstance(node, exp.Not):
        return isinstance(node.this, exp.Is) and _is_column(node.this.this, alias, column)
    if isinstance(node, _COMPARISONS):
        return any(_is_column(side, alias, column) for side in (node.this, node.expression))
    return isinstance(node, exp.Between | exp.In | exp.Is) and _is_column(node.this, alias, column)


def _is_column(node: exp.Expr | None, alias: str, column: str) -> bool:
    return (
        isinstance(node, exp.Column)
        and node.name.lower() == column
        and node.table.lower() in ("", alias)
    )
