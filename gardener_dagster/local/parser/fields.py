"""JSON fitted to a table's schema: what the schema lacks is left out, a wrong type is an error.

Pure, and independent of datatypes. BigQuery refuses a whole load for one field that the table lacks
or one value that its column cannot hold, so neither may be written to an object.
"""

import datetime as dt
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from gardener_dagster.warehouse.table_schemas import Field

Row = dict[str, Any]
_Convert = Callable[[Any], Any]

_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})"
)
_LARGEST_OFFSET = dt.timedelta(hours=14)  # largest time zone offset in BigQuery
_SHOWN = 40  # characters of a value in an error


class MisfitError(ValueError):
    """A column cannot hold a value.

    Attributes:
        path: Path of the field, from the outermost record on.
    """

    def __init__(self, expected: str, value: object, path: tuple[str, ...] = ()) -> None:
        self.expected, self.value, self.path = expected, value, path
        shown = repr(value)
        if len(shown) > _SHOWN:
            shown = f"{shown[:_SHOWN]}…"
        super().__init__(f"{'.'.join(path) or 'it'} is {shown}, expected {expected}")


class Record:
    """Fits JSON objects to the fields of a record."""

    def __init__(self, fields: Sequence[Field]) -> None:
        """Prepare the fields of a schema, in BigQuery's own JSON."""
        self._columns = {
            field["name"].casefold(): (field["name"], _converter(field)) for field in fields
        }

    def fit(self, value: object) -> Row:
        """Return the fields of a JSON object that the schema has, under the schema's names.

        Names are case-insensitive, as in BigQuery; ``null`` is left out.

        Raises:
            MisfitError: The value is not an object, or one of its fields does not fit its column.
        """
        if not isinstance(value, dict):
            raise MisfitError("an object", value)
        kept: Row = {}
        for name, item in value.items():
            column = self._columns.get(name.casefold())
            if column is None or item is None:
                continue
            known_as, convert = column
            try:
                kept[known_as] = convert(item)
            except MisfitError as error:
                raise MisfitError(error.expected, error.value, (name, *error.path)) from None
        return kept


def _converter(field: Field) -> _Convert:
    one = (
        Record(field["fields"]).fit
        if field["type"] in ("RECORD", "STRUCT")
        else _CONVERTERS[field["type"]]
    )
    return _each(one) if field.get("mode") == "REPEATED" else one


def _each(convert: _Convert) -> _Convert:
    def convert_list(value: object) -> list[Any]:
        if not isinstance(value, list):
            raise MisfitError("a list", value)
        return [convert(one) for one in value if one is not None]

    return convert_list


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise MisfitError("a string", value)
    # JSON may contain an escaped lone surrogate, which UTF-8 and so BigQuery cannot hold. It is
    # kept as the text of its escape: one replacement character for all could make two ids equal.
    return value.encode("utf-8", "backslashreplace").decode()


def _integer(value: object) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:  # true and false are ints too
        raise MisfitError("a 64-bit integer", value)
    return value


def _float(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MisfitError("a number", value)
    if not -sys.float_info.max <= value <= sys.float_info.max:
        raise MisfitError("a finite number", value)
    return value


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise MisfitError("true or false", value)
    return value


def _timestamp(value: object) -> str:
    if not isinstance(value, str) or not _is_time(value):
        raise MisfitError("a time as in RFC 3339, in UTC from the year 1 to 9999", value)
    return value


def _is_time(text: str) -> bool:
    """Return whether BigQuery can hold the time.

    BigQuery's TIMESTAMP and Python's datetime have the same range, in UTC:
    https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#timestamp_type
    """
    if not _RFC3339.fullmatch(text):
        return False
    try:
        time = dt.datetime.fromisoformat(text)
        time.astimezone(dt.UTC)
    except (ValueError, OverflowError):  # such as February 30; such as year 0 in UTC
        return False
    offset = time.utcoffset()
    return offset is not None and abs(offset) <= _LARGEST_OFFSET


_CONVERTERS: dict[str, _Convert] = {
    "STRING": _string,
    "INTEGER": _integer,
    "INT64": _integer,
    "FLOAT": _float,
    "FLOAT64": _float,
    "BOOLEAN": _boolean,
    "BOOL": _boolean,
    "TIMESTAMP": _timestamp,
}
"""The converters of the column types that occur in parsed tests."""
