"""Detect the schema of rows. No I/O.

https://cloud.google.com/bigquery/docs/schema-detect. The first 500 rows are the sample. Values
of types that ``catalog.schema`` does not support are detected as STRING.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from gardener_dagster.local.bigquery.catalog.schema import REPEATED, Field, Fields, find
from gardener_dagster.local.bigquery.errors import invalid
from gardener_dagster.local.bigquery.loading import rows

SAMPLE_ROWS = 500

_TEXTS = (
    ("DATE", rows.DATE),
    ("TIMESTAMP", rows.TIMESTAMP),
    ("INTEGER", rows.INTEGER),
    ("FLOAT", rows.FLOAT),
    ("BOOLEAN", "(?i)true|false"),
)
_WIDER = {
    frozenset({"INTEGER", "FLOAT"}): "FLOAT",
    frozenset({"DATE", "TIMESTAMP"}): "TIMESTAMP",
}


def detect(sample: Iterable[Mapping[str, Any]]) -> Fields:
    """Detect the schema of some rows.

    Raises:
        BigQueryError: there are no rows, or a field has incompatible values.
    """
    found: list[Field] = []
    for row in sample:
        found = _merge(found, _fields(row))
    settled = tuple(field for field in map(_settled, found) if field is not None)
    if not settled:
        raise invalid("Schema has no fields: the schema cannot be detected from empty data")
    return settled


def _fields(row: Mapping[str, Any]) -> list[Field]:
    return _merge([], [_field(name, value) for name, value in row.items()])


def _field(name: str, value: object) -> Field:
    """Return the field of one value. Its type is empty if the value does not determine it."""
    match value:
        case None:
            return Field(name=name, type="")
        case list():
            one = _merge([Field(name=name, type="")], [_field(name, item) for item in value])[0]
            return replace(one, mode=REPEATED)
        case dict():
            return Field(name=name, type="RECORD", fields=tuple(_fields(value)))
        case bool():
            return Field(name=name, type="BOOLEAN")
        case int():
            return Field(name=name, type="INTEGER")
        case float():
            return Field(name=name, type="FLOAT")
    text = str(value)
    kind = next((kind for kind, pattern in _TEXTS if re.fullmatch(pattern, text)), "STRING")
    return Field(name=name, type=kind)


def _merge(have: list[Field], new: Iterable[Field]) -> list[Field]:
    merged = list(have)
    for field in new:
        old = find(merged, field.name)
        if old is None:
            merged.append(field)
        else:
            merged[merged.index(old)] = _wider(old, field)
    return merged


def _wider(one: Field, other: Field) -> Field:
    """Return a field that accepts the values of both."""
    if other.type == "" and other.mode != REPEATED:
        return one
    if one.type == "" and (one.mode != REPEATED or other.mode == REPEATED):
        return other
    if one.mode != other.mode:
        raise invalid(f"Array specified for non-repeated field: {one.name}.")
    if other.type in ("", one.type):
        return replace(one, fields=tuple(_merge(list(one.fields), other.fields)))
    if "RECORD" in (one.type, other.type):
        raise invalid(f"Field {one.name} is a record in some rows and none in others")
    return replace(one, type=_WIDER.get(frozenset({one.type, other.type}), "STRING"))


def _settled(field: Field) -> Field | None:
    """Make undetermined types STRING, as BigQuery does; return None for a record without fields."""
    if field.type == "RECORD":
        inner = [one for one in map(_settled, field.fields) if one is not None]
        return replace(field, fields=tuple(inner)) if inner else None
    return field if field.type else replace(field, type="STRING")
