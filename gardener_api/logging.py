"""Configure the log of a process: one line for each event, as text or as JSON.

Modules log with ``logging`` and pass the fields of an event in ``extra``. Two formatters replace
structlog: libraries use ``logging`` too, and structlog would need as much code to set up.
``job_log`` writes the events of jobs.
"""

import datetime as dt
import json
import logging
import re
import sys
from typing import Any, TextIO

_BARE = re.compile(r"[\w./:~+-]+", re.ASCII)
_OF_EVERY_RECORD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def configure(*, as_json: bool, stream: TextIO | None = None) -> None:
    """Configure the root logger to log level INFO and higher.

    Args:
        as_json: Whether each line is a JSON object, else text.
        stream: Where to write; stderr by default.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    # No formatter shows these, and collecting them takes time: see "Optimization" in Python's
    # "Logging HOWTO".
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


class JsonFormatter(logging.Formatter):
    """Format a record as JSON: ``time``, ``level``, ``logger``, ``event`` and ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        # ASCII only: no character can be read as a line break.
        return json.dumps(fields, default=str)


class TextFormatter(logging.Formatter):
    """Format a record as text: time, level, logger, event, and ``extra`` as ``name=value``.

    Values are untrusted: non-printable characters are escaped, so that no value can fake a line.
    The lines of a traceback start with ``|``, as no other line does.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or lines."""
        parts = [
            _time(record),
            f"{record.levelname:7}",
            record.name,
            _printable(record.getMessage()),
        ]
        parts += [f"{name}={_quoted(value)}" for name, value in _extra(record).items()]
        lines = [" ".join(parts)]
        if record.exc_info:
            traceback = self.formatException(record.exc_info)
            lines += [f"    | {_printable(line)}" for line in traceback.splitlines()]
        return "\n".join(lines)


def _time(record: logging.LogRecord) -> str:
    time = dt.datetime.fromtimestamp(record.created, dt.UTC)
    return time.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    fields = vars(record)
    return {name: fields[name] for name in fields if name not in _OF_EVERY_RECORD}


def _quoted(value: object) -> str:
    text = str(value)
    if _BARE.fullmatch(text):
        return text
    text = _printable(text.replace("\\", "\\\\"))
    if text and not any(character in text for character in ' "='):
        return text
    return '"' + text.replace('"', '\\"') + '"'


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
