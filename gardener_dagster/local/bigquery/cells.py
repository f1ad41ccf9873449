"""Rows as BigQuery writes them: every scalar as text, in ``f`` and ``v``.

https://cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/list. DuckDB makes the texts,
here they are only put into shape.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from gardener_dagster.local.bigquery.schema import Field, Fields, quoted


def text_columns(fields: Fields) -> str:
    """DuckDB's select list that makes texts of all scalars; timestamps become microseconds."""
    return ", ".join(_text(quoted(field.name), field, 0) for field in fields) or "NULL"


def _text(value: str, field: Field, depth: int) -> str:
    if field.repeated:
        item = f"x{depth}"
        return f"list_transform({value}, lambda {item}: {_text(item, field.item, depth + 1)})"
    match field.type:
        case "RECORD":
            parts = (_text(f"({value}).{quoted(f.name)}", f, depth) for f in field.fields)
            return f"CASE WHEN {value} IS NOT NULL THEN row({', '.join(parts)}) END"
        case "TIMESTAMP":
            return f"CAST(epoch_us({value}) AS VARCHAR)"
        case "BYTES":
            return f"to_base64({value})"
        case "DATETIME":
            return _clock(value, "%Y-%m-%dT%H:%M:%S.%f")
        case "TIME":
            return _clock(f"(DATE '2000-01-01' + {value})", "%H:%M:%S.%f")
        case "NUMERIC" | "BIGNUMERIC":
            return f"regexp_replace(CAST({value} AS VARCHAR), '\\.?0+$', '')"
        case _:
            return f"CAST({value} AS VARCHAR)"


def _clock(value: str, form: str) -> str:
    """Microseconds are six digits or none."""
    return f"regexp_replace(strftime({value}, '{form}'), '\\.000000$', '')"


def rows_json(
    rows: Iterable[Sequence[Any]], fields: Fields, *, int64_timestamp: bool
) -> Iterable[str]:
    """The JSON of each row.

    Args:
        rows: of a select with :func:`text_columns`.
        fields: their schema.
        int64_timestamp: timestamps in whole microseconds; else in seconds, as a float.
    """
    for row in rows:
        yield json.dumps(_row(row, fields, int64_timestamp), separators=(",", ":"))


def _row(values: Sequence[Any], fields: Fields, int64: bool) -> dict[str, Any]:
    return {"f": [{"v": _cell(v, f, int64)} for v, f in zip(values, fields, strict=False)]}


def _cell(value: Any, field: Field, int64: bool) -> Any:  # noqa: ANN401 - text, row or array
    if field.repeated:
        return [{"v": _cell(item, field.item, int64)} for item in value or ()]
    if value is None:
        return None
    if field.type == "RECORD":
        values = list(value.values()) if isinstance(value, dict) else value
        return _row(values, field.fields, int64)
    if field.type == "TIMESTAMP" and not int64:
        return repr(int(value) / 1e6)
    return value
