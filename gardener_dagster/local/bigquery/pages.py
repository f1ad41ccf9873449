"""Rows of a table, page by page, as ``tabledata.list`` and ``getQueryResults`` give them."""

# ruff: noqa: S608 - this package quotes its identifiers and literals

import json
from collections.abc import Sequence

from starlette.responses import Response

from gardener_dagster.local.bigquery.cells import rows_json, text_columns
from gardener_dagster.local.bigquery.database import Connection
from gardener_dagster.local.bigquery.schema import Field
from gardener_dagster.local.bigquery.tables import Resource, Table

_MOST_ROWS = 50_000
_MOST_BYTES = 10 * 2**20
"""A page ends after so much JSON: tabledata.list gives 10 MB at most."""


def page(
    connection: Connection,
    table: Table,
    *,
    partition: str,
    fields: Sequence[Field],
    start: int,
    maximum: int | None,
    int64_timestamp: bool,
) -> tuple[Resource, list[str]]:
    """One page.

    Args:
        connection: to the rows.
        table: that has them.
        partition: only of this one; empty: of all.
        fields: of the table, that are wanted.
        start: the first row, from 0.
        maximum: so many at most.
        int64_timestamp: timestamps in whole microseconds.

    Returns:
        ``totalRows`` and, if there are more, ``pageToken``; and the rows, each as JSON.
    """
    condition = table.where(partition)
    [total] = connection.execute(
        f"SELECT count(*) FROM {table.store} WHERE {condition}"
    ).fetchone() or (0,)
    most = _MOST_ROWS if maximum is None else min(maximum, _MOST_ROWS)
    rows: list[str] = []
    size = 0
    if most and start < total:
        connection.execute(
            f"SELECT {text_columns(tuple(fields))} FROM {table.store} WHERE {condition}"
            f" LIMIT {most} OFFSET {start}"
        )
        while size < _MOST_BYTES and (some := connection.fetchmany(1000)):
            for row in rows_json(some, tuple(fields), int64_timestamp=int64_timestamp):
                rows.append(row)
                size += len(row)
                if size >= _MOST_BYTES:
                    break
    answer: Resource = {"totalRows": str(total)}
    end = start + len(rows)
    if end < total:
        answer["pageToken"] = str(end)
    return answer, rows


def answer(head: Resource, rows: Sequence[str]) -> Response:
    """The answer of a head and rows that are JSON already."""
    text = json.dumps(head, separators=(",", ":"))
    if rows:
        text = f'{text[:-1]},"rows":[{",".join(rows)}]}}'
    return Response(text, media_type="application/json")
