"""Configure the log of a process: one line for each event, as text or as JSON.

Modules log with ``logging``, what belongs to an event in ``extra``. Two formatters, and not
structlog: libraries log this way too, and it would need as much code to set up as this takes.
What is logged about jobs is in ``job_log``.
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
    """Have everything logged from level INFO on.

    Args:
        as_json: An object a line; else text.
        stream: Where to; stderr by default.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    # No formatter shows these, and finding them out costs: see "Optimization" in Python's "Logging
    # HOWTO".
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


class JsonFormatter(logging.Formatter):
    """An object of ``time``, ``level``, ``logger``, ``event`` and what belongs to the event."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        # In ASCII, so that nothing is taken for the end of a line.
        return json.dumps(fields, default=str)


class TextFormatter(logging.Formatter):
    """Time, level, logger, event, and ``name=value`` of what belongs to it.

    Values come from outside: what is not printable is escaped, so that none makes a line of its
    own. A traceback follows on lines that begin like no other.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, or lines."""
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
