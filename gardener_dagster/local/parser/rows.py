"""A test's JSON into a row, for each datatype that the reference parser knows. Pure.

Rows have the same fields as those that m-lab/etl makes, including the case of the keys.
"""

import datetime as dt
import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NoReturn

from gardener_dagster.local.parser.fields import MisfitError, Record, Row
from gardener_dagster.warehouse.table_schemas import schema_of


class CorruptError(ValueError):
    """A member of an archive is not a valid test of its datatype."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a test was read, and when it was parsed.

    Attributes:
        archive_url: ``gs://bucket/name``.
        archive_size: Size of the archive in bytes.
        filename: Path of the member in the archive.
        file_size: Size of the member in the archive, in bytes.
        parsed: Time of parsing, aware and UTC.
    """

    archive_url: str
    archive_size: int
    filename: str
    file_size: int
    parsed: dt.datetime

    def record(self) -> Row:
        """Return the ``parser`` record of a row."""
        return {
            "Version": _version(),
            "Time": self.parsed.isoformat().replace("+00:00", "Z"),
            "ArchiveURL": self.archive_url,
            "Filename": self.filename,
            "Priority": 0,
            "GitCommit": "",  # unknown to an installed package
            "ArchiveSize": self.archive_size,
            "FileSize": self.file_size,
        }


def parse_member(datatype: str, content: bytes, *, date: dt.date, origin: Origin) -> Row:
    """Convert one test to a row.

    Args:
        datatype: One of ``DATATYPES``.
        content: The member's JSON.
        date: Date in the archive's path.
        origin: Archive and member that the test was read from.

    Raises:
        CorruptError: The content is not a JSON object, or a value does not fit its column's type.
    """
    try:
        test = json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{origin.filename} is not JSON: {error}") from error
    try:
        return _PARSERS[datatype](test, date, origin)
    except MisfitError as error:
        raise CorruptError(f"{origin.filename}: {error}") from error


# -- ndt7


def _ndt7(test: Any, date: dt.date, origin: Origin) -> Row:  # noqa: ANN401 - any JSON
    raw = _raw("ndt7").fit(test)
    _clear_connections(raw)
    summary = _summary(raw)
    row: Row = {"ID": summary["UUID"], "A": summary} if summary else {}
    return row | {"Parser": origin.record(), "Date": date.isoformat(), "Raw": raw}


def _clear_connections(raw: Row) -> None:
    """Remove ``ConnectionInfo`` from the server's measurements only, as M-Lab's parsers do."""
    for direction in ("Download", "Upload"):
        for measurement in raw.get(direction, {}).get("ServerMeasurements", ()):
            measurement.pop("ConnectionInfo", None)


def _summary(raw: Row) -> Row:
    """Return the ``a`` record; empty for a test with neither direction."""
    for direction, moved in (("Download", "BytesAcked"), ("Upload", "BytesReceived")):
        if half := raw.get(direction):
            return {
                "UUID": half.get("UUID", "").replace("_unsafe", ""),
                "TestTime": half.get("StartTime"),
                "CongestionControl": "bbr",  # used by all ndt7 servers
                **_rates(half.get("ServerMeasurements"), moved, download=direction == "Download"),
            }
    return {}


def _rates(measurements: list[Row] | None, moved: str, *, download: bool) -> Row:
    """Return the last snapshot's rates: 0 without snapshots, as in m-lab/etl; omit unknown ones."""
    if not measurements:
        return {"MeanThroughputMbps": 0.0, "MinRTT": 0.0, "LossRate": 0.0}
    info = measurements[-1].get("TCPInfo", {})
    elapsed, sent = info.get("ElapsedTime"), info.get("BytesSent")
    rates: Row = {}
    if elapsed and moved in info:
        rates["MeanThroughputMbps"] = 8 * info[moved] / elapsed  # bits/µs
    if "MinRTT" in info:
        rates["MinRTT"] = info["MinRTT"] / 1000
    if not download:
        rates["LossRate"] = 0.0
    elif sent:
        rates["LossRate"] = info.get("BytesRetrans", 0) / sent
    return rates


# -- annotations


def _annotation2(test: Any, date: dt.date, origin: Origin) -> Row:  # noqa: ANN401 - any JSON
    read = _annotation().fit(test)
    row: Row = {"id": read.get("UUID"), "date": date.isoformat(), "parser": origin.record()}
    for half in ("server", "client"):
        if half in read:
            _clear_region(read[half])
            row[half] = read[half]
    return row


def _hopannotation2(test: Any, date: dt.date, origin: Origin) -> Row:  # noqa: ANN401 - any JSON
    raw = _raw("hopannotation2").fit(test)
    _clear_region(raw.get("Annotations", {}))
    return {
        "ID": raw.get("ID"),
        "Parser": origin.record(),
        "Date": date.isoformat(),
        "Raw": raw,
    }


def _clear_region(annotations: Row) -> None:
    annotations.get("Geo", {}).pop("Region", None)


# -- reading


@cache
def _raw(datatype: str) -> Record:
    """Return the fields of the datatype's column ``raw``.

    ``BBRInfo.MaxBandwidth``, which old servers wrote instead of ``BW``, is left out: neither
    M-Lab's parsers nor the schema have a field for it.
    """
    fields = next(f["fields"] for f in schema_of(datatype) if f["name"] == "raw")
    return Record(fields)


@cache
def _annotation() -> Record:
    """Return the fields of an annotation: ``server``, ``client``, and the UUID for the id."""
    halves = [f for f in schema_of("annotation2") if f["name"] in ("server", "client")]
    return Record([*halves, {"name": "UUID", "type": "STRING"}])


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


@cache
def _version() -> str:
    return f"reference-parser v{importlib.metadata.version('gardener')}"


_PARSERS: dict[str, Callable[[Any, dt.date, Origin], Row]] = {
    "ndt7": _ndt7,
    "annotation2": _annotation2,
    "hopannotation2": _hopannotation2,
}
DATATYPES = tuple(sorted(_PARSERS))
"""The datatypes that the reference parser can parse."""
