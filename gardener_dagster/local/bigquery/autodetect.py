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
    made = [_as_known(field, find(known, field.name)) for field in found]
    made += [field for field in known if find(found, field.name) is None]
    if not made:
        raise invalid("Schema has no fields: the schema cannot be detected from empty data")
    return tuple(made)


def _fields(row: Mapping[str, Any]) -> list[Field]:
    fields = (_field(name, value) for name, value in row.items())
    return _merge([], [field for field in fields if field is not None])


def _field(name: str, value: object) -> Field | None:
    """``None``: the value does not tell."""
    match value:
        case None | [] | {}:
            return None
        case list():
            one: list[Field] = []
            for item in value:
                field = _field(name, item)
                one = _merge(one, [field] if field else [])
            return replace(one[0], mode=REPEATED) if one else None
        case dict():
            inner = _fields(value)
            return Field(name=name, type="RECORD", fields=tuple(inner)) if inner else None
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
    if one.mode != other.mode:
        raise invalid(f"Array specified for non-repeated field: {one.name}.")
    if one.type == other.type == "RECORD":
        return replace(one, fields=tuple(_merge(list(one.fields), other.fields)))
    if one.type == other.type:
        return one
    if "RECORD" in (one.type, other.type):
        raise invalid(f"Field {one.name} is a record in some rows and none in others")
    return replace(one, type=_WIDER.get(frozenset({one.type, other.type}), "STRING"))


def _as_known(field: Field, known: Field | None) -> Field:
    if known is None:
        return field
    if known.type != "RECORD" or field.type != "RECORD":
        return known
    inner = [_as_known(one, find(known.fields, one.name)) for one in field.fields]
    inner += [one for one in known.fields if find(field.fields, one.name) is None]
    return replace(known, fields=tuple(inner))
