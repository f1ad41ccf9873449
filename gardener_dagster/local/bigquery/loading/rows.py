"""Check and convert one line of JSON at a time; name what is wrong. No I/O.

https://cloud.google.com/bigquery/docs/loading-data-cloud-storage-json#details_of_loading_json_data.
``json_lines`` converts whole files in DuckDB, and is faster. This module converts the lines where
``json_lines`` fails. Its rows have the schema's column names, and strings for all scalars;
``json_lines`` always accepts them.
"""

import datetime as dt
import json
import re
from typing import Any

from gardener_dagster.local.bigquery.catalog.schema import Field, Fields, find

MAXIMUM_ROW_BYTES = 16 * 2**20
"""BigQuery accepts 100 MB. Lower here: each DuckDB thread has two buffers of this size."""

# Patterns for Python's re and DuckDB's RE2.
INTEGER = r"[+-]?[0-9]+"
FLOAT = (
    r"[+-]?([0-9]+\.?[0-9]*([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?|[iI]nf(inity)?|[nN]a[nN])"
)
DATE = r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
_TIME = r"[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(\.[0-9]{0,9})?"
TIMESTAMP = rf"{DATE}([Tt ]{_TIME})?( ?([zZ]|UTC|[+-][0-9]{{1,2}}(:?[0-9]{{2}})?))?"

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class RowError(Exception):
    """A row is invalid; the message is BigQuery's or similar to it."""


class RowReader:
    """Reads rows of one schema.

    Args:
        fields: the schema.
        ignore_unknown: whether to ignore keys without a field; otherwise they are errors.
    """

    def __init__(self, fields: Fields, *, ignore_unknown: bool) -> None:
        self._fields, self._ignore_unknown = fields, ignore_unknown

    def read(self, line: bytes) -> dict[str, Any]:
        """Convert a line.

        Returns:
            The row by the schema's column names, with strings for all scalars.

        Raises:
            RowError: the line is invalid.
        """
        return self._record(parsed(line), self._fields, "")

    def _record(self, value: dict[str, Any], fields: Fields, path: str) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for key, one in value.items():
            field = find(fields, key)
            if field is None:
                if not self._ignore_unknown:
                    raise RowError(f"No such field: {path}{key}.")
                continue
            converted = self._value(one, field, f"{path}{field.name}")
            if converted is not None:
                row[field.name] = converted
        return row

    def _value(self, value: Any, field: Field, path: str) -> Any:  # noqa: ANN401 - JSON
        if value is None:
            return None
        if not field.repeated:
            return self._item(value, field, path)
        if not isinstance(value, list):
            raise RowError(f"Repeated field must be imported as a JSON array. Field: {path}.")
        if None in value:
            raise RowError(f"Only optional fields can be set to NULL. Field: {path}; Value: NULL")
        return [self._item(one, field, path) for one in value]

    def _item(self, value: Any, field: Field, path: str) -> Any:  # noqa: ANN401 - JSON
        if isinstance(value, list):
            raise RowError(f"Array specified for non-repeated field: {path}.")
        if field.type == "RECORD":
            if not isinstance(value, dict):
                raise RowError(f"Expected a JSON object. Field: {path}; Value: {_shown(value)}")
            return self._record(value, field.fields, f"{path}.")
        if isinstance(value, dict):
            raise RowError(f"JSON object specified for non-record field: {path}")
        return scalar_text(value, field.type, path)


def parsed(line: bytes) -> dict[str, Any]:
    """Parse a line.

    Raises:
        RowError: it is not a JSON object, or too large.
    """
    if len(line) > MAXIMUM_ROW_BYTES:
        raise RowError(f"Row size is larger than: {MAXIMUM_ROW_BYTES}.")
    try:
        value = json.loads(line.decode("utf-8").strip())
    except (ValueError, RecursionError) as error:
        raise RowError(f"Parser terminated before end of string: {error}") from error
    if not isinstance(value, dict):
        raise RowError("Value encountered without start of object.")
    return value


def scalar_text(value: Any, kind: str, path: str) -> str:  # noqa: ANN401 - JSON
    """Convert a JSON scalar to a string that DuckDB can cast to a type.

    Args:
        value: the scalar.
        kind: BigQuery's type.
        path: the field's path, for the error.

    Raises:
        RowError: the scalar is not a value of the type.
    """
    text = _plain(value)
    try:
        converted = _convert(value, text, kind)
    except (ValueError, OverflowError):
        converted = None
    if converted is None:
        name, shown = {"FLOAT": "double"}.get(kind, kind.lower()), _shown(text)
        raise RowError(
            f"Could not convert value '{shown}' to {name}. Field: {path}; Value: {shown}"
        )
    return converted


def _convert(value: Any, text: str, kind: str) -> str | None:  # noqa: ANN401 - JSON
    """Return the string; return None or raise an error if it is not a value of the type."""
    match kind:
        case "STRING":
            return text
        case "INTEGER":
            return _integer(value, text)
        case "BOOLEAN":
            return text.lower() if text.lower() in ("true", "false") else None
        case "FLOAT":
            return text if _matches(FLOAT, text) and not isinstance(value, bool) else None
        case _:
            return _moment(value, text, kind)


def _integer(value: object, text: str) -> str | None:
    if isinstance(value, float) and value.is_integer():
        text = str(int(value))
    valid = not isinstance(value, bool) and _matches(INTEGER, text)
    return str(int(text)) if valid and -(2**63) <= int(text) < 2**63 else None


def _moment(value: object, text: str, kind: str) -> str | None:
    if kind == "TIMESTAMP" and isinstance(value, int | float) and not isinstance(value, bool):
        return (_EPOCH + dt.timedelta(seconds=value)).isoformat()
    if not _matches({"DATE": DATE, "TIMESTAMP": TIMESTAMP}[kind], text):
        return None
    year, month, day = (int(part) for part in re.split("[Tt ]", text)[0].split("-"))
    moment = dt.datetime(year, month, day)  # noqa: DTZ001 - the offset is subtracted below
    if clock := re.search(r"(\d{1,2}):(\d{1,2}):(\d{1,2})", text):
        hour, minute, second = (int(part) for part in clock.groups())
        moment = moment.replace(hour=hour, minute=minute, second=second)
    # Raises OverflowError outside of BigQuery's range: the years 1 to 9999 in UTC.
    _ = moment - _utc_offset(text)
    return text


def _utc_offset(text: str) -> dt.timedelta:
    match = re.search(r":\S* ?([+-])(\d{1,2}):?(\d{2})?$", text)
    if match is None:
        return dt.timedelta()
    offset = dt.timedelta(hours=int(match[2]), minutes=int(match[3] or 0))
    return -offset if match[1] == "-" else offset


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text) is not None


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
