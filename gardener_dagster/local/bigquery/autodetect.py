"""The schema of rows that come without one. Pure.

https://cloud.google.com/bigquery/docs/schema-detect: from up to the first 500 rows.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from gardener_dagster.local.bigquery import rows
from gardener_dagster.local.bigquery.errors import invalid
from gardener_dagster.local.bigquery.schema import REPEATED, Field, Fields, find

SAMPLE_ROWS = 500

_TEXTS = (
    ("DATE", rows.DATE),
    ("TIME", rows.TIME),
    ("TIMESTAMP", rows.TIMESTAMP),
    ("INTEGER", rows.INTEGER),
    ("FLOAT", rows.FLOAT),
    ("BOOLEAN", "(?i)true|false"),
)
_WIDER = {
    frozenset({"INTEGER", "FLOAT"}): "FLOAT",
    frozenset({"DATE", "TIMESTAMP"}): "TIMESTAMP",
}


def detect(sample: Iterable[Mapping[str, Any]], *, known: Fields = ()) -> Fields:
    """The schema of some rows.

    Args:
        sample: the rows.
        known: fields that the table has already: they keep their types.

    Raises:
        BigQueryError: there are no rows to tell it from.
    """
    found: list[Field] = []
    for row in sample:
        found = _merge(found, _fields(row))
    settled = [field for field in map(_settled, found) if field is not None]
    made = [_as_known(field, find(known, field.name)) for field in settled]
    made += [field for field in known if find(found, field.name) is None]
    if not made:
        raise invalid("Schema has no fields: the schema cannot be detected from empty data")
    return tuple(made)


def _fields(row: Mapping[str, Any]) -> list[Field]:
    return _merge([], [_field(name, value) for name, value in row.items()])


def _field(name: str, value: object) -> Field:
    """The field of one value; its type is empty where the value does not tell."""
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
    if one.type == "" and one.mode != REPEATED:
        return other
    if other.type == "" and other.mode != REPEATED:
        return one
    if one.mode != other.mode:
        raise invalid(f"Array specified for non-repeated field: {one.name}.")
    if one.type == "" or other.type == "":
        return one if other.type == "" else other
    if one.type == other.type == "RECORD":
        return replace(one, fields=tuple(_merge(list(one.fields), other.fields)))
    if one.type == other.type:
        return one
    if "RECORD" in (one.type, other.type):
        raise invalid(f"Field {one.name} is a record in some rows and none in others")
    return replace(one, type=_WIDER.get(frozenset({one.type, other.type}), "STRING"))


def _settled(field: Field) -> Field | None:
    """Where no value tells, BigQuery takes STRING; a record that is always empty is left out."""
    if field.type == "RECORD":
        inner = [one for one in map(_settled, field.fields) if one is not None]
        return replace(field, fields=tuple(inner)) if inner else None
    return field if field.type else replace(field, type="STRING")


def _as_known(field: Field, known: Field | None) -> Field:
    if known is None:
        return field
    if known.type != "RECORD" or field.type != "RECORD":
        return known
    inner = [_as_known(one, find(known.fields, one.name)) for one in field.fields]
    inner += [one for one in known.fields if find(field.fields, one.name) is None]
    return replace(known, fields=tuple(inner))
