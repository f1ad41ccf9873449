"""Generate DuckDB's SQL that loads files of JSON lines into a table. No I/O.

DuckDB first reports the structure of the lines (``json_structure``): their keys and kinds of
values. This module derives from the structure and the schema the SELECT that converts the lines as
BigQuery does: it ignores the case of keys, and fails if a value does not fit its column. If the
structure does not determine whether the lines are valid, ``rows`` converts them.
"""

# ruff: noqa: S608 - this package quotes its identifiers and literals

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gardener_dagster.local.bigquery.catalog.schema import Field, Fields, find, literal, quoted
from gardener_dagster.local.bigquery.loading import rows

Shape = Any
"""A JSON structure of DuckDB: an object of shapes, an array of one shape, or the name of a type."""

_WHOLE = ("BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT")
_NUMBERS = (*_WHOLE, "DOUBLE")
_PATTERNS = {
    "INTEGER": rows.INTEGER,
    "FLOAT": rows.FLOAT,
    "BOOLEAN": "(?i)true|false",
    "DATE": rows.DATE,
    "TIMESTAMP": rows.TIMESTAMP,
}
_RANGES = {
    "DATE": ("0001-01-01", "9999-12-31"),
    "TIMESTAMPTZ": ("0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00"),
}
"""BigQuery's ranges of the types whose range in DuckDB is larger, by DuckDB's type.

https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types
"""


class Unclear(Exception):
    """The structure does not determine whether all lines are valid."""


Conversion = tuple[Shape, str]
"""The structure that ``from_json`` reads from a value, and the SQL that converts the result."""


def source(files: Sequence[Path]) -> str:
    """Return DuckDB's table function that reads the lines of files, as the column ``json``."""
    names = ", ".join(literal(str(file)) for file in files)
    return (
        f"read_json_objects([{names}], format='newline_delimited', compression='uncompressed',"
        f" maximum_object_size={rows.MAXIMUM_ROW_BYTES})"
    )


def structures_query(lines: str) -> str:
    """Return the query for the distinct structures of the lines, as JSON strings."""
    return f"SELECT DISTINCT CAST(json_structure(json) AS VARCHAR) FROM {lines}"


def common_shape(structures: Iterable[str]) -> Shape:
    """Merge the structures of the lines into one."""
    shape: Shape = "NULL"
    for text in structures:
        shape = _common(shape, _empty_records(json.loads(text)))
    return shape


def _empty_records(shape: Shape) -> Shape:
    """Replace ``JSON``, DuckDB's name of an empty record outside of arrays, by ``{}``."""
    if shape == "JSON":
        return {}
    return {k: _empty_records(v) for k, v in shape.items()} if isinstance(shape, dict) else shape


def _common(one: Shape, other: Shape) -> Shape:
    if one == other or other == "NULL":
        return one
    if one == "NULL":
        return other
    if isinstance(one, dict) and isinstance(other, dict):
        both = {key: _common(one[key], other[key]) for key in one if key in other}
        return one | other | both
    if isinstance(one, list) and isinstance(other, list):
        return [_common(one[0], other[0])]
    kinds = {one, other} if isinstance(one, str) and isinstance(other, str) else set()
    if kinds and kinds <= set(_NUMBERS):
        return "DOUBLE" if "DOUBLE" in kinds else "HUGEINT"
    return "JSON"


def insert(store: str, lines: str, fields: Fields, shape: Shape, *, ignore_unknown: bool) -> str:
    """Return the INSERT of all lines into a table; it fails if a line is invalid.

    Args:
        store: name of the table.
        lines: the table function that :func:`source` returns.
        fields: the table's schema.
        shape: the structure of the lines.
        ignore_unknown: whether to ignore keys without a field.

    Raises:
        Unclear: the structure does not determine whether the lines are valid.
    """
    if not isinstance(shape, dict):
        raise Unclear
    row, wanted = _record("r", fields, shape, ignore_unknown, 0)
    columns, values = ", ".join(quoted(name) for name in row), ", ".join(row.values())
    structure = literal(json.dumps(wanted or {"_": "VARCHAR"}))
    return (
        f"INSERT INTO {store} ({columns}) SELECT {values} FROM (SELECT CASE json_type(json)"
        f" WHEN 'OBJECT' THEN from_json(json, {structure}) ELSE error('no object') END AS r"
        f" FROM {lines})"
    )


def shape_of(fields: Fields) -> Shape:
    """Return the structure of lines that ``rows`` has converted."""
    return {field.name: _shape(field) for field in fields}


def _shape(field: Field) -> Shape:
    if field.repeated:
        return [_shape(field.item)]
    return shape_of(field.fields) if field.type == "RECORD" else "VARCHAR"


def _record(
    value: str, fields: Fields, shape: Mapping[str, Shape], ignore_unknown: bool, depth: int
) -> tuple[dict[str, str], dict[str, Shape]]:
    """Return the SQL of each field of a record, and the structure that ``from_json`` reads."""
    keys: dict[str, str] = {}
    for key in shape:
        field = find(fields, key)
        if field is not None and field.name not in keys:
            keys[field.name] = key
        elif field is not None or not ignore_unknown:
            raise Unclear  # two keys of one field, or an unknown key
    sql: dict[str, str] = {}
    wanted: dict[str, Shape] = {}
    for field in fields:
        key = keys.get(field.name, "")
        if key and shape[key] != "NULL":
            inner = f"{value}.{quoted(key)}"
            wanted[key], sql[field.name] = _field(inner, field, shape[key], ignore_unknown, depth)
        else:
            empty = "[]" if field.repeated else "NULL"
            sql[field.name] = f"CAST({empty} AS {field.duckdb_type})"
    return sql, wanted


def _field(value: str, field: Field, shape: Shape, ignore: bool, depth: int) -> Conversion:
    if not field.repeated:
        return _item(value, field, shape, ignore, depth)
    if not isinstance(shape, list):
        raise Unclear
    if shape[0] == "NULL":  # each array is empty or has only nulls
        empty = f"CAST([] AS {field.duckdb_type})"
        checked = f"CASE WHEN len({value}) > 0 THEN error('null') ELSE {empty} END"
        return ["VARCHAR"], checked
    name = f"x{depth}"
    item, sql = _item(name, field.item, shape[0], ignore, depth + 1)
    array = f"list_transform({value}, lambda {name}: {sql})"
    checked = f"CASE WHEN list_count({value}) < len({value}) THEN error('null') ELSE {array} END"
    return [item], f"COALESCE({checked}, [])"


def _item(value: str, field: Field, shape: Shape, ignore: bool, depth: int) -> Conversion:
    if field.type == "RECORD":
        if not isinstance(shape, dict):
            raise Unclear
        inner, wanted = _record(value, field.fields, shape, ignore, depth)
        parts = ", ".join(f"{quoted(name)} := {sql}" for name, sql in inner.items())
        if wanted:
            made = f"CASE WHEN {value} IS NOT NULL THEN struct_pack({parts}) END"
            return wanted, made
        kinds = f"CASE json_type({value}) WHEN 'OBJECT' THEN struct_pack({parts})"
        return "JSON", f"{kinds} WHEN 'NULL' THEN NULL END"
    if not isinstance(shape, str) or shape == "JSON":
        raise Unclear
    return _scalar(value, field, shape)


def _scalar(value: str, field: Field, shape: str) -> Conversion:
    text, kind = "VARCHAR", field.duckdb_type
    if field.type == "STRING":
        return text, value
    if shape == text:
        return text, _checked(value, _PATTERNS[field.type], kind)
    match field.type:
        case "INTEGER" if shape in _WHOLE:
            return shape, f"CAST({value} AS BIGINT)"
        case "FLOAT" if shape in _NUMBERS:
            return "DOUBLE", value
        case "BOOLEAN" if shape == kind:
            return kind, value
    raise Unclear


def _checked(value: str, pattern: str, kind: str) -> str:
    """Return SQL that casts a string; it fails if the string is malformed or out of range."""
    cast = f"CAST({value} AS {kind})"
    valid = f"regexp_full_match({value}, {literal(pattern)})"
    if kind in _RANGES:
        first, last = (f"CAST({literal(one)} AS {kind})" for one in _RANGES[kind])
        valid += f" AND {cast} BETWEEN {first} AND {last}"
    return f"CASE WHEN {valid} THEN {cast} WHEN {value} IS NOT NULL THEN error('no {kind}') END"
