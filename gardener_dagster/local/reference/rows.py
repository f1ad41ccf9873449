"""A test's JSON into a row, for each datatype that the reference parser knows. Pure.

Rows hold what the tables' schemas hold and nothing else: BigQuery refuses a load with a field that
its table lacks, and nodes write fields that no schema has (``ConnectionInfo``, for one).
"""

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from gardener_dagster.warehouse.schemas import Field, schema_of

Row = dict[str, Any]

VERSION = "https://github.com/m-lab/etl-gardener/tree/reference-parser"


class CorruptError(ValueError):
    """A member of an archive that is no test of its datatype."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a test was read, and when it was parsed: the ``parser`` record of a row.

    Attributes:
        archive_url: ``gs://bucket/name``.
        archive_size: In bytes.
        filename: Of the member in the archive.
        file_size: Of the member, in bytes, as it is in the archive.
        parsed: The time, aware.
    """

    archive_url: str
    archive_size: int
    filename: str
    file_size: int
    parsed: dt.datetime

    @property
    def record(self) -> Row:
        """The ``parser`` record."""
        return {
            "Version": VERSION,
            "Time": self.parsed.isoformat().replace("+00:00", "Z"),
            "ArchiveURL": self.archive_url,
            "Filename": self.filename,
            "Priority": 0,
            "GitCommit": "",
            "ArchiveSize": self.archive_size,
            "FileSize": self.file_size,
        }


def parse_member(datatype: str, content: bytes, *, date: dt.date, origin: Origin) -> Row:
    """The row of one test.

    Args:
        datatype: One of ``DATATYPES``.
        content: The member's JSON.
        date: Of the archive's path.
        origin: Where it was read.

    Raises:
        CorruptError: The content is no JSON object.
    """
    try:
        test = json.loads(content)
    except ValueError as error:
        raise CorruptError(f"{origin.filename} is not JSON: {error}") from error
    if not isinstance(test, dict):
        raise CorruptError(f"{origin.filename} is not a JSON object but {type(test).__name__}")
    return _PARSERS[datatype](test, date, origin)


# -- ndt7


def _ndt7(test: Row, date: dt.date, origin: Origin) -> Row:
    summary = _ndt7_summary(test)
    row: Row = {
        "ID": summary.get("UUID"),
        "A": summary or None,
        "Parser": origin.record,
        "Date": date.isoformat(),
        "Raw": pruned(test, _fields_of("ndt7", "raw")),
    }
    return {name: value for name, value in row.items() if value is not None}


def _ndt7_summary(test: Row) -> Row:
    """The ``a`` record; empty for a test with neither direction."""
    for direction, acked in (("Download", "BytesAcked"), ("Upload", "BytesReceived")):
        half = test.get(direction)
        if isinstance(half, dict):
            summary: Row = {
                "UUID": str(half.get("UUID", "")).replace("_unsafe", ""),
                "TestTime": half.get("StartTime"),
                "CongestionControl": "bbr",
            }
            return summary | _rates(half, acked, download=direction == "Download")
    return {}


def _rates(half: Row, acked: str, *, download: bool) -> Row:
    measurements = half.get("ServerMeasurements") or ()
    info = next((m["TCPInfo"] for m in reversed(measurements) if m.get("TCPInfo")), None)
    if info is None:
        return {}
    sent, elapsed = info.get("BytesSent", 0), info.get("ElapsedTime", 0)
    rates: Row = {"MinRTT": info.get("MinRTT", 0) / 1000}
    if elapsed:
        rates["MeanThroughputMbps"] = 8 * info.get(acked, 0) / elapsed
    if not download:
        rates["LossRate"] = 0.0
    elif sent:
        rates["LossRate"] = info.get("BytesRetrans", 0) / sent
    return rates


# -- annotations


def _annotation2(test: Row, date: dt.date, origin: Origin) -> Row:
    halves = {
        name: pruned(test[name.capitalize()], _fields_of("annotation2", name))
        for name in ("server", "client")
        if isinstance(test.get(name.capitalize()), dict)
    }
    for half in halves.values():
        _clear_region(half)
    return {
        "id": test.get("UUID"),
        "date": date.isoformat(),
        "parser": origin.record,
    } | halves


def _hopannotation2(test: Row, date: dt.date, origin: Origin) -> Row:
    raw = pruned(test, _fields_of("hopannotation2", "raw"))
    _clear_region(raw.get("Annotations") or {})
    return {"ID": test.get("ID"), "Parser": origin.record, "Date": date.isoformat(), "Raw": raw}


def _clear_region(annotations: Row) -> None:
    if isinstance(annotations.get("Geo"), dict):
        annotations["Geo"].pop("Region", None)


# -- schemas


def pruned(value: Mapping[str, Any], fields: Sequence[Field]) -> Row:
    """The parts of a JSON object that a schema knows; case does not matter, as in BigQuery."""
    known = {field["name"].lower(): field for field in fields}
    kept: Row = {}
    for name, item in value.items():
        field = known.get(name.lower())
        if field is None or item is None:
            continue
        kept[field["name"]] = _pruned_value(item, field)
    return kept


def _pruned_value(item: Any, field: Field) -> Any:  # noqa: ANN401 - any JSON
    if field["type"] != "RECORD":
        return item
    if field.get("mode") == "REPEATED":
        return [pruned(one, field["fields"]) for one in item if isinstance(one, dict)]
    return pruned(item, field["fields"]) if isinstance(item, dict) else None


@cache
def _fields_of(datatype: str, record: str) -> Sequence[Field]:
    field = next(f for f in schema_of(datatype) if f["name"].lower() == record)
    fields: Sequence[Field] = field["fields"]
    return fields


_PARSERS: dict[str, Callable[[Row, dt.date, Origin], Row]] = {
    "ndt7": _ndt7,
    "annotation2": _annotation2,
    "hopannotation2": _hopannotation2,
}
DATATYPES = frozenset(_PARSERS)
"""What the reference parser knows."""
