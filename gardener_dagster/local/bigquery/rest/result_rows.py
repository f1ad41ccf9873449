"""Rows of query results in BigQuery's JSON, page by page.

https://cloud.google.com/bigquery/docs/reference/rest/v2/jobs/getQueryResults. Every scalar is a
string: DuckDB formats it, Python wraps it in ``f`` and ``v``. Timestamps are integers in
microseconds, as the clients request (``formatOptions.useInt64Timestamp``).
"""

# ruff: noqa: S608 - this package quotes its identifiers and literals

from collections.abc import Sequence
from typing import Any

from gardener_dagster.local.bigquery.catalog.database import Connection
from gardener_dagster.local.bigquery.catalog.schema import Field, Fields, quoted
from gardener_dagster.local.bigquery.catalog.table import Resource, Table

_MAXIMUM_ROWS = 10_000
"""Maximum rows of a page. BigQuery limits the bytes of a page instead."""


def result_page(
    connection: Connection, table: Table, partition: str, *, start: int, maximum: int | None
) -> Resource:
    """Read one page of rows.

    Args:
        connection: connection to the database.
        table: the table to read.
        partition: id of the partition to read; empty: the whole table.
        start: index of the first row, from 0.
        maximum: maximum number of rows; None: a full page.

    Returns:
        ``totalRows``, ``rows`` and, if there are more, ``pageToken``.
    """
    condition = table.where(partition)
    [total] = connection.execute(
        f"SELECT count(*) FROM {table.store} WHERE {condition}"
    ).fetchone() or (0,)
    limit = _MAXIMUM_ROWS if maximum is None else min(maximum, _MAXIMUM_ROWS)
    rows: list[Resource] = []
    if limit and start < total:
        columns = ", ".join(_text(quoted(field.name), field, 0) for field in table.fields)
        connection.execute(
            f"SELECT {columns} FROM {table.store} WHERE {condition} LIMIT {limit} OFFSET {start}"
        )
        rows = [_row(row, table.fields) for row in connection.fetchall()]
    end = start + len(rows)
    answer: Resource = {"totalRows": str(total), "rows": rows}
    return answer | ({"pageToken": str(end)} if end < total else {})


def _text(value: str, field: Field, depth: int) -> str:
    """Return DuckDB's expression that converts all scalars of a value to strings."""
    if field.repeated:
        item = f"x{depth}"
        return f"list_transform({value}, lambda {item}: {_text(item, field.item, depth + 1)})"
    if field.type == "RECORD":
        parts = (_text(f"({value}).{quoted(f.name)}", f, depth) for f in field.fields)
        return f"CASE WHEN {value} IS NOT NULL THEN row({', '.join(parts)}) END"
    if field.type == "TIMESTAMP":
        return f"CAST(epoch_us({value}) AS VARCHAR)"
    return f"CAST({value} AS VARCHAR)"


def _row(values: Sequence[Any], fields: Fields) -> Resource:
    return {"f": [{"v": _cell(v, f)} for v, f in zip(values, fields, strict=True)]}


def _cell(value: Any, field: Field) -> Any:  # noqa: ANN401 - a string, a row or an array
    if field.repeated:
        return [{"v": _cell(item, field.item)} for item in value or ()]
    if value is None or field.type != "RECORD":
        return value
    return _row(list(value.values()) if isinstance(value, dict) else value, field.fields)
