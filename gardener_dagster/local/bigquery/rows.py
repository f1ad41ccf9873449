"""A line of JSON checked and converted as BigQuery does, one by one, with BigQuery's words. Pure.

https://cloud.google.com/bigquery/docs/loading-data-cloud-storage-json#details_of_loading_json_data.
``ndjson`` does the same for whole files in DuckDB; where that finds something wrong, or something
it cannot judge, the rows are read here. What is read here comes out in a form that ``ndjson`` takes
for certain: the columns' own names, and texts for all scalars.
"""

import base64
import binascii
import datetime as dt
import json
import re
from decimal import Decimal, InvalidOperation
from typing import Any

from gardener_dagster.local.bigquery.schema import REQUIRED, Field, Fields, find

MAXIMUM_ROW_BYTES = 100 * 2**20
"""https://cloud.google.com/bigquery/quotas#load_jobs, JSON row size."""

# Read by Python's re and by DuckDB's RE2 alike.
INTEGER = r"[+-]?[0-9]+"
FLOAT = (
    r"[+-]?([0-9]+\.?[0-9]*([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?|[iI]nf(inity)?|[nN]a[nN])"
)
DATE = r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
TIME = r"[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(\.[0-9]{0,9})?"
DATETIME = rf"{DATE}([Tt ]{TIME})?"
TIMESTAMP = rf"{DATETIME}( ?([zZ]|UTC|[+-][0-9]{{1,2}}(:?[0-9]{{2}})?))?"

_SYNTAX = {
    "Expecting ',' delimiter": "Expected , or } after key:value pair.",
    "Expecting ':' delimiter": "Expected : between key:value pair.",
    "Expecting property name": "Expected key",
    "Unterminated string": "Closing quote expected in string.",
    "Extra data": "Parser terminated before end of string",
    "Expecting value": "Unexpected token.",
}


class RowError(Exception):
    """A row that BigQuery does not take; the message is BigQuery's."""


class RowReader:
    """Reads rows of one schema.

    Args:
        fields: of the table.
        ignore_unknown: values without a field are left out; else they are errors.
    """

    def __init__(self, fields: Fields, *, ignore_unknown: bool) -> None:
        self._fields, self._ignore_unknown = fields, ignore_unknown

    def read(self, line: bytes) -> dict[str, Any]:
        """A row with the columns' own names and texts for scalars.

        Raises:
            RowError: BigQuery would not take it.
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
        for field in fields:
            if field.mode == REQUIRED and field.name not in row:
                raise RowError(f"Missing required field: {path}{field.name}.")
        return row

    def _value(self, value: Any, field: Field, path: str) -> Any:  # noqa: ANN401 - JSON
        if not field.repeated:
            return None if value is None else self._item(value, field, path)
        if value is None:
            return None
        if not isinstance(value, list):
            raise RowError(f"Repeated field must be imported as a JSON array. Field: {path}.")
        if None in value:
            raise RowError(f"Only optional fields can be set to NULL. Field: {path}; Value: NULL")
        return [self._item(one, field, path) for one in value]

    def _item(self, value: Any, field: Field, path: str) -> Any:  # noqa: ANN401 - JSON
        if field.type == "JSON":
            return value
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
    """The JSON object of a line.

    Raises:
        RowError: it is none, or too large.
    """
    if len(line) > MAXIMUM_ROW_BYTES:
        raise RowError(f"Row size is larger than: {MAXIMUM_ROW_BYTES}.")
    try:
        value = json.loads(line.decode("utf-8").strip())
    except json.JSONDecodeError as error:
        if error.pos >= len(error.doc):
            raise RowError("Parser terminated before end of string") from error
        said = next((v for k, v in _SYNTAX.items() if error.msg.startswith(k)), error.msg)
        raise RowError(said) from error
    except UnicodeDecodeError as error:
        raise RowError(f"Invalid UTF-8 at byte {error.start} of the row") from error
    except RecursionError as error:
        raise RowError("JSON is nested too deeply") from error
    if not isinstance(value, dict):
        raise RowError("Value encountered without start of object.")
    return value


def scalar_text(value: Any, kind: str, path: str) -> str:  # noqa: ANN401 - JSON
    """The text of a JSON scalar that becomes a value of a type.

    Raises:
        RowError: it cannot.
    """
    text = _plain(value)
    try:
        good = _convert(value, text, kind)
    except (ValueError, OverflowError, InvalidOperation, binascii.Error):
        good = None
    if good is None:
        raise RowError(_refusal(value, text, kind, path))
    return good


def _convert(value: Any, text: str, kind: str) -> str | None:  # noqa: ANN401 - JSON
    """``None`` or an exception: it is no value of the type."""
    match kind:
        case "STRING" | "GEOGRAPHY":
            return text
        case "INTEGER":
            return _integer(value, text)
        case "BOOLEAN":
            return text.lower() if text.lower() in ("true", "false") else None
        case "FLOAT":
            return text if _is(FLOAT, text) and not isinstance(value, bool) else None
        case "NUMERIC" | "BIGNUMERIC":
            return format(Decimal(text), "f") if not isinstance(value, bool) else None
        case "BYTES":
            base64.b64decode(text, validate=True)
            return text
        case _:
            return _moment(value, text, kind)


def _integer(value: object, text: str) -> str | None:
    if isinstance(value, float) and value.is_integer():
        text = str(int(value))
    good = not isinstance(value, bool) and _is(INTEGER, text) and -(2**63) <= int(text) < 2**63
    return str(int(text)) if good else None


def _moment(value: object, text: str, kind: str) -> str | None:
    if kind == "TIMESTAMP" and isinstance(value, int | float) and not isinstance(value, bool):
        epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
        return (epoch + dt.timedelta(seconds=value)).isoformat()
    pattern = {"DATE": DATE, "TIME": TIME, "DATETIME": DATETIME, "TIMESTAMP": TIMESTAMP}[kind]
    if not _is(pattern, text):
        return None
    if kind != "TIME":
        year, month, day = (int(part) for part in re.split("[Tt ]", text)[0].split("-"))
        dt.date(year, month, day)
    if kind != "DATE" and (clock := re.search(r"(\d{1,2}):(\d{1,2}):(\d{1,2})", text)):
        hour, minute, second = (int(part) for part in clock.groups())
        dt.time(hour, minute, second)
    return text


def _is(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text) is not None


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def _refusal(value: object, text: str, kind: str, path: str) -> str:
    where = f"Field: {path}; Value: {_shown(text)}"
    match kind:
        case "TIMESTAMP":
            return (
                f"Couldn't convert value to timestamp: Could not parse '{_shown(text)}' as a"
                " timestamp. Required format is YYYY-MM-DD HH:MM[:SS[.SSSSSS]] or YYYY/MM/DD"
                f" HH:MM[:SS[.SSSSSS]] {where}"
            )
        case "DATE" | "DATETIME" | "TIME":
            name = kind.lower()
            return f"Could not convert value to {name}: Invalid {name}: '{_shown(text)}' {where}"
    said = {"FLOAT": "double", "BOOLEAN": "boolean", "INTEGER": "integer"}.get(kind, kind.lower())
    return f"Could not convert value '{_proto(value, text)}' to {said}. {where}"


def _proto(value: object, text: str) -> str:
    """A JSON value as BigQuery prints it in errors."""
    match value:
        case bool():
            return f"bool_value: {text}"
        case int():
            return f"int64_value: {text}"
        case float():
            return f"double_value: {text}"
        case _:
            return f'string_value: "{_shown(text)}"'


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
