"""The kinds of values in the configuration file, each with an error that says what was expected."""

import datetime as dt
import re
from typing import Annotated

from pydantic import BeforeValidator

from gardener_api.regex import compile_filter

_DURATION_UNITS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0,
}  # fmt: skip
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


LONGEST_DAYS = 36_525  # a century, so that no date calculation overflows
_YEARS = range(2000, 2100)
_SHOWN_MAXIMUM = 200


def shown(value: object) -> str:
    """Return the ``repr`` of a value, truncated if it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or a deep list
        return f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= _SHOWN_MAXIMUM else f"{text[:_SHOWN_MAXIMUM]}…"


def parse_duration(value: object) -> dt.timedelta:
    """Parse a duration in Go's syntax: ``5h``, ``1m``, ``1h30m``, ``2.5s``.

    Args:
        value: The text; a ``timedelta`` is returned unchanged.

    Raises:
        ValueError: It is not a duration, not positive or longer than ``LONGEST_DAYS``.
    """
    if isinstance(value, dt.timedelta):
        return value
    text = str(value)
    if not re.fullmatch(f"(?:{_DURATION_PART.pattern})+", text):
        raise ValueError("expected a duration like 5h, 1m or 1h30m")
    seconds = sum(float(n) * _DURATION_UNITS[unit] for n, unit in _DURATION_PART.findall(text))
    if seconds > LONGEST_DAYS * 86_400:
        raise ValueError(f"expected a duration of at most {LONGEST_DAYS} days")
    duration = dt.timedelta(seconds=seconds)
    if not duration:
        raise ValueError("expected a duration of a microsecond or longer")
    return duration


def _parse_date(value: object) -> dt.date:
    if isinstance(value, dt.datetime):
        date = value.date()
    elif isinstance(value, dt.date):
        date = value
    else:
        try:
            date = dt.datetime.fromisoformat(shown(value).strip("'")).date()
        except ValueError:
            raise ValueError("expected a date like 2015-11-19") from None
    if date.year not in _YEARS:
        raise ValueError(f"expected a date of the years {_YEARS[0]} to {_YEARS[-1]}")
    return date


def _check_regex(value: object) -> object:
    if isinstance(value, str):
        try:
            compile_filter(value)
        except ValueError as error:
            raise ValueError(
                f"expected a regular expression as Go's RE2 reads it ({error})"
            ) from None
    return value


def _matching(pattern: str, expected: str) -> BeforeValidator:
    def check(value: object) -> object:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(f"expected {expected}")
        return value

    return BeforeValidator(check)


Duration = Annotated[dt.timedelta, BeforeValidator(parse_duration)]
Date = Annotated[dt.date, BeforeValidator(_parse_date)]
Regex = Annotated[str, BeforeValidator(_check_regex)]
Bucket = Annotated[str, _matching(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", "a bucket's name")]
Name = Annotated[
    str,
    _matching(
        r"[a-z][a-z0-9_]{0,127}",
        "a name of at most 128 lower-case letters, digits and underscores",
    ),
]
Column = Annotated[
    str,
    _matching(
        r"(?a:[A-Za-z_]\w{0,127}(\.[A-Za-z_]\w{0,127}){0,14})",
        "a column, like id or parser.ArchiveURL",
    ),
]


Location = Annotated[str, _matching(r"[A-Za-z0-9-]{0,64}", "a location, like US or europe-west1")]
Owner = Annotated[
    str,
    _matching(r"(?a:team:[\w.-]+|[\w.+-]+@[\w-]+(\.[\w-]+)+)", "an e-mail address or team:<name>"),
]
