"""Files of JSON lines into a DuckDB table, in DuckDB. Pure: makes the SQL.

First DuckDB tells what keys and kinds of values the lines have (``json_structure``), which are
put together here. From that and the schema follows the SELECT that converts them: column
names whatever their case, BigQuery's conversions, an error where a value is none of its column's.
Whatever is not plain from the structure is refused here, and left to ``rows``.
"""

# ruff: noqa: S608 - this package quotes its identifiers and literals

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gardener_dagster.local.bigquery import rows
from gardener_dagster.local.bigquery.schema import REQUIRED, Field, Fields, find, literal, quoted

Shape = Any
"""A structure as DuckDB has it: an object of shapes, an array of one, or the name of a type."""

_WHOLE = ("BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT")
_NUMBERS = (*_WHOLE, "DOUBLE")
_PATTERNS = {
    "INTEGER": rows.INTEGER,
    "FLOAT": rows.FLOAT,
    "NUMERIC": rows.FLOAT,
    "BIGNUMERIC": rows.FLOAT,
    "BOOLEAN": "(?i)true|false",
    "DATE": rows.DATE,
    "TIME": rows.TIME,
    "DATETIME": rows.DATETIME,
    "TIMESTAMP": rows.TIMESTAMP,
}


class Unclear(Exception):
    """The structure does not tell whether all rows are right, or that they are not."""


@dataclass(frozen=True)
class Conversion:
    """How to read a value out of what ``from_json`` made.

    Attributes:
        shape: what ``from_json`` is to make of it.
        sql: the value converted.
    """

    shape: Shape
    sql: str


def source(files: Sequence[Path], *, maximum_bytes: int) -> str:
    """DuckDB's table of the lines of some files; its column is ``json``."""
    names = ", ".join(literal(str(file)) for file in files)
    return (
        f"read_json_objects([{names}], format='newline_delimited', compression='uncompressed',"
        f" maximum_object_size={maximum_bytes})"
    )


def structures_query(lines: str) -> str:
    """Gives the different structures of the lines, as JSON texts."""
    return f"SELECT DISTINCT CAST(json_structure(json) AS VARCHAR) FROM {lines}"


def common_shape(structures: Iterable[str]) -> Shape:
    """The structure of all lines, from those of each."""
    shape: Shape = "NULL"
    for text in structures:
        shape = _common(shape, _empty_records(json.loads(text)))
    return shape


def _empty_records(shape: Shape) -> Shape:
    """In one line, ``JSON`` is an empty record; within an array it may be a mixture, too."""
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
    """The INSERT of all lines into a table of these fields.

    It fails (``error()``, or a cast) where a line is not right.

    Raises:
        Unclear: it cannot be told from the structure.
    """
    if not isinstance(shape, dict):
        raise Unclear
    row, wanted = _object("r", fields, shape, ignore_unknown, 0)
    columns = ", ".join(quoted(name) for name in row)
    values = ", ".join(row.values())
    if not columns:
        columns, values = quoted(fields[0].name), "NULL"
    structure = literal(json.dumps(wanted or {"_": "VARCHAR"}))
    return (
        f"INSERT INTO {store} ({columns}) SELECT {values} FROM (SELECT CASE json_type(json)"
        f" WHEN 'OBJECT' THEN from_json(json, {structure}) ELSE error('no object') END AS r"
        f" FROM {lines})"
    )


def shape_of(fields: Fields) -> Shape:
    """The structure of the lines that ``rows`` makes."""
    return {field.name: _shape(field) for field in fields}


def _shape(field: Field) -> Shape:
    if field.repeated:
        return [_shape(field.item)]
    if field.type == "RECORD":
        return shape_of(field.fields)
    return "JSON" if field.type == "JSON" else "VARCHAR"


def _object(
    value: str, fields: Fields, shape: Mapping[str, Shape], ignore_unknown: bool, depth: int
) -> tuple[dict[str, str], dict[str, Shape]]:
    """SQL by field, and the shape to read, of a record."""
    keys: dict[str, str] = {}
    for key in shape:
        field = find(fields, key)
        if field is None:
            if not ignore_unknown:
                raise Unclear
        elif field.name in keys:
            raise Unclear  # the same column under two names
        else:
            keys[field.name] = key
    sql: dict[str, str] = {}
    wanted: dict[str, Shape] = {}
    for field in fields:
        known = field.name in keys and shape[keys[field.name]] != "NULL"
        if known:
            key = keys[field.name]
            one = _field(f"{value}.{quoted(key)}", field, shape[key], ignore_unknown, depth)
            sql[field.name], wanted[key] = one.sql, one.shape
        elif field.mode == REQUIRED:
            raise Unclear
        elif field.repeated:
            sql[field.name] = f"CAST([] AS {field.duckdb_type})"
        else:
            sql[field.name] = f"CAST(NULL AS {field.duckdb_type})"
    return sql, wanted


def _field(value: str, field: Field, shape: Shape, ignore: bool, depth: int) -> Conversion:
    if not field.repeated:
        one = _item(value, field, shape, ignore, depth)
        if field.mode == REQUIRED:
            return Conversion(one.shape, f"COALESCE({one.sql}, error('required'))")
        return one
    if not isinstance(shape, list):
        raise Unclear
    if shape[0] == "NULL":  # all are empty, or have nothing but null in them
        empty = f"CAST([] AS {field.duckdb_type})"
        checked = f"CASE WHEN len({value}) > 0 THEN error('null') ELSE {empty} END"
        return Conversion(["VARCHAR"], checked)
    name = f"x{depth}"
    item = _item(name, field.item, shape[0], ignore, depth + 1)
    array = f"list_transform({value}, lambda {name}: {item.sql})"
    checked = f"CASE WHEN list_count({value}) < len({value}) THEN error('null') ELSE {array} END"
    return Conversion([item.shape], f"COALESCE({checked}, [])")


def _item(value: str, field: Field, shape: Shape, ignore: bool, depth: int) -> Conversion:
    if field.type == "JSON":
        return Conversion("JSON", value)
    if field.type == "RECORD":
        if not isinstance(shape, dict):
            raise Unclear
        inner, wanted = _object(value, field.fields, shape, ignore, depth)
        parts = ", ".join(f"{quoted(name)} := {sql}" for name, sql in inner.items())
        if wanted:
            made = f"CASE WHEN {value} IS NOT NULL THEN struct_pack({parts}) END"
            return Conversion(wanted, made)
        kinds = f"CASE json_type({value}) WHEN 'OBJECT' THEN struct_pack({parts})"
        return Conversion("JSON", f"{kinds} WHEN 'NULL' THEN NULL END")
    if not isinstance(shape, str) or shape == "JSON":
        raise Unclear
    return _scalar(value, field, shape)


def _scalar(value: str, field: Field, shape: str) -> Conversion:
    text, kind = "VARCHAR", field.duckdb_type
    if field.type in ("STRING", "GEOGRAPHY"):
        return Conversion(text, value)
    if shape == text and field.type in _PATTERNS:
        return Conversion(text, _checked(value, _PATTERNS[field.type], kind))
    match field.type:
        case "INTEGER" if shape in _WHOLE:
            return Conversion(shape, f"CAST({value} AS BIGINT)")
        case "FLOAT" if shape in _NUMBERS:
            return Conversion("DOUBLE", value)
        case "BOOLEAN" if shape == kind:
            return Conversion(kind, value)
        case "BYTES" if shape == text:
            return Conversion(text, f"from_base64({value})")
    raise Unclear


def _checked(value: str, pattern: str, kind: str) -> str:
    """A text cast to a type; an error if it is not written like one."""
    return (
        f"CASE WHEN regexp_full_match({value}, {literal(pattern)}) THEN CAST({value} AS {kind})"
        f" WHEN {value} IS NOT NULL THEN error('no {kind}') END"
    )
