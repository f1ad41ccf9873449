"""Sample archives in M-Lab's format, and what must become of them.

Deterministic: the same seed and dates give the same bytes. Each date has a few archives of ndt7
from several machines and the matching annotation2, with what real days have: tests that came
twice, in two archives; a member that is no JSON; tests nobody annotated; tests of the first
minutes of a day whose annotations stand in the archive of the day before; one that is annotated
on both days.
"""

import datetime as dt
import gzip
import io
import json
import random
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]

MACHINES = ("mlab1-lga05", "mlab2-lga05", "mlab3-syd03", "mlab1-gru03", "mlab2-fra04")
TESTS_PER_MACHINE = 30
TWICE = 8  # tests of a date that came twice
UNANNOTATED = 7
AFTER_MIDNIGHT = 4
_SERVERS = {
    "lga05": ("US", "New York", 40.77, -73.87, 3356),
    "syd03": ("AU", "Sydney", -33.95, 151.18, 1221),
    "gru03": ("BR", "São Paulo", -23.43, -46.47, 28573),
    "fra04": ("DE", "Frankfurt", 50.03, 8.56, 3320),
}
_CLIENTS = (
    ("US", "Reston", 38.97, -77.34, 701, "71.163.0.0/16"),
    ("DE", "Köln", 50.94, 6.96, 3320, "91.0.0.0/10"),
    ("BR", "Recife", -8.05, -34.88, 28573, "189.4.0.0/14"),
    ("AU", "Hobart", -42.88, 147.33, 1221, "101.160.0.0/11"),
)
_TCP_FIELDS = (
    "State", "CAState", "Retransmits", "Probes", "Backoff", "Options", "WScale", "AppLimited",
    "RTO", "ATO", "SndMSS", "RcvMSS", "Unacked", "Sacked", "Lost", "Retrans", "Fackets",
    "LastDataSent", "LastAckSent", "LastDataRecv", "LastAckRecv", "PMTU", "RcvSsThresh", "RTT",
    "RTTVar", "SndSsThresh", "SndCwnd", "AdvMSS", "Reordering", "RcvRTT", "RcvSpace",
    "TotalRetrans", "PacingRate", "MaxPacingRate", "BytesAcked", "BytesReceived", "SegsOut",
    "SegsIn", "NotsentBytes", "MinRTT", "DataSegsIn", "DataSegsOut", "DeliveryRate", "BusyTime",
    "RWndLimited", "SndBufLimited", "Delivered", "DeliveredCE", "BytesSent", "BytesRetrans",
    "DSackDups", "ReordSeen", "RcvOooPack", "SndWnd", "ElapsedTime",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What must become of a date of a datatype.

    Attributes:
        joined_rows: ``None`` for annotation2, which is not joined.
        annotated_rows: Of the joined rows; ``None`` for annotation2.
    """

    archives: int
    rows_loaded: int
    duplicates_removed: int
    raw_rows: int
    joined_rows: int | None = None
    annotated_rows: int | None = None


@dataclass(kw_only=True)
class _Test:
    uuid: str
    machine: str
    start: dt.datetime
    content: Json
    annotation: Json


@dataclass(kw_only=True)
class _Day:
    """What is written for a date: files by machine, ids annotated in its own archives."""

    tests: list[_Test]
    ndt7: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    annotations: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)
    annotated: set[str] = field(default_factory=set)


def make_samples(
    folder: Path, dates: Sequence[dt.date], *, seed: int = 7
) -> dict[tuple[str, dt.date], Expected]:
    """Writes the archives of some dates.

    Args:
        folder: Gets ``ndt/<datatype>/YYYY/MM/DD/<name>.tgz``.
        dates: One after the other.
        seed: Another one gives other tests.

    Returns:
        What must become of each datatype and date, ``("ndt7", date)``.
    """
    days = {date: _Day(tests=_tests(date, seed)) for date in dates}
    for date, day in days.items():
        _annotate(date, day, days)
        _collect(day)
    for date, day in days.items():
        for machine, files in day.ndt7.items():
            _write(folder, "ndt7", date, machine, files)
        for machine, files in day.annotations.items():
            _write(folder, "annotation2", date, machine, files)
    expected: dict[tuple[str, dt.date], Expected] = {}
    for date, day in days.items():
        before = days.get(date - dt.timedelta(days=1))
        readable = day.annotated | (before.annotated if before else set())
        ids = {test.uuid for test in day.tests}
        expected["ndt7", date] = Expected(
            archives=len(day.ndt7),
            rows_loaded=len(ids) + TWICE,
            duplicates_removed=TWICE,
            raw_rows=len(ids),
            joined_rows=len(ids),
            annotated_rows=len(ids & readable),
        )
        expected["annotation2", date] = Expected(
            archives=len(day.annotations),
            rows_loaded=len(day.annotated),
            duplicates_removed=0,
            raw_rows=len(day.annotated),
        )
    return expected


def _tests(date: dt.date, seed: int) -> list[_Test]:
    chance = random.Random(f"{seed} {date}")  # noqa: S311 - samples, not secrets
    midnight = dt.datetime.combine(date, dt.time(), dt.UTC)
    tests = []
    for index, machine in enumerate(MACHINES):
        for number in range(TESTS_PER_MACHINE):
            early = index == 0 and number < AFTER_MIDNIGHT
            seconds = chance.uniform(1, 50) if early else chance.uniform(3600, 86_000)
            start = midnight + dt.timedelta(seconds=seconds)
            uuid = f"ndt-{machine[-5:]}_{int(midnight.timestamp())}_{index:04X}{number:012X}"
            tests.append(
                _Test(
                    uuid=uuid,
                    machine=machine,
                    start=start,
                    content=_ndt7(chance, uuid, start),
                    annotation=_annotation(chance, uuid, start, machine),
                )
            )
    return tests


def _annotate(date: dt.date, day: _Day, days: dict[dt.date, _Day]) -> None:
    before = days.get(date - dt.timedelta(days=1))
    for position, test in enumerate(day.tests):
        if position < AFTER_MIDNIGHT:  # begun the day before, as the annotator saw it
            homes = [before] if position else [before, day]
        elif position >= len(day.tests) - UNANNOTATED:
            homes = []
        else:
            homes = [day]
        for home in homes:
            if home is not None:
                home.annotated.add(test.uuid)
                home.annotations.setdefault(test.machine, []).append(
                    (f"{test.uuid}.json", _dump(test.annotation))
                )


def _collect(day: _Day) -> None:
    for number, test in enumerate(day.tests):
        direction = "download" if "Download" in test.content else "upload"
        name = f"ndt7-{direction}-{test.start:%Y%m%dT%H%M%S.%f}Z.{test.uuid}.json"
        content = _dump(test.content)
        if number % 3:  # newer nodes pack each file, older ones did not
            name, content = f"{name}.gz", gzip.compress(content, mtime=0)
        day.ndt7.setdefault(test.machine, []).append((name, content))
        if AFTER_MIDNIGHT < number <= AFTER_MIDNIGHT + TWICE:
            day.ndt7.setdefault(MACHINES[-1] + "-again", []).append((name, content))
    corrupt = b'{"GitShortCommit": "773b3e2", "Version": "v0.20.'
    day.ndt7[MACHINES[1]].insert(3, ("ndt7-download-cut-short.json", corrupt))


def _ndt7(chance: random.Random, uuid: str, start: dt.datetime) -> Json:
    client = chance.choice(_CLIENTS)
    download = chance.random() < 0.5
    count = chance.randint(4, 9)
    rate = chance.uniform(5e5, 9e7)
    end = start + dt.timedelta(seconds=10)
    half: Json = {
        "UUID": uuid,
        "StartTime": _stamp(start),
        "EndTime": _stamp(end),
        "ServerMeasurements": [
            _measurement(
                chance, uuid, rate, download=download, elapsed=(n + 1) * 10_000_000 // count
            )
            for n in range(count)
        ],
        "ClientMetadata": [
            {"Name": "client_name", "Value": "ndt7-client-go-cmd"},
            {"Name": "client_os", "Value": chance.choice(("linux", "darwin", "windows"))},
        ],
    }
    return {
        "GitShortCommit": "773b3e2",
        "Version": "v0.20.20",
        "ServerIP": "4.14.159.86",
        "ServerPort": 443,
        "ClientIP": client[5].split("/", 1)[0],
        "ClientPort": chance.randint(1024, 65_535),
        "StartTime": _stamp(start),
        "EndTime": _stamp(end),
        "Download" if download else "Upload": half,
    }


def _measurement(
    chance: random.Random, uuid: str, rate: float, *, download: bool, elapsed: int
) -> Json:
    moved = round(rate * elapsed / 1e6 * chance.uniform(0.9, 1.1))
    info = dict.fromkeys(_TCP_FIELDS, 0) | {
        name: chance.randint(0, 5000) for name in _TCP_FIELDS[8:40]
    }
    info |= {
        "State": 1,
        "MinRTT": chance.randint(2_000, 300_000),
        "BytesAcked": moved if download else 2_000,
        "BytesReceived": 1_600 if download else moved,
        "BytesSent": round(moved * 1.02) if download else 2_100,
        "BytesRetrans": round(moved * 0.01) if download else 0,
        "ElapsedTime": elapsed,
    }
    return {
        "ConnectionInfo": {"Client": "[::1]:1", "Server": "[::1]:443", "UUID": uuid},
        "BBRInfo": {
            "BW": round(rate),
            "MinRTT": info["MinRTT"],
            "PacingGain": 256,
            "CwndGain": 512,
            "ElapsedTime": elapsed,
        },
        "TCPInfo": info,
    }


def _annotation(chance: random.Random, uuid: str, start: dt.datetime, machine: str) -> Json:
    name, site = machine.split("-")
    server, client = _SERVERS[site], chance.choice(_CLIENTS)
    return {
        "UUID": uuid,
        "Timestamp": _stamp(start),
        "Server": {"Site": site, "Machine": name, **_place(*server, cidr="4.14.159.64/26")},
        "Client": _place(*client[:5], cidr=client[5]),
    }


def _place(
    country: str, city: str, latitude: float, longitude: float, number: int, *, cidr: str
) -> Json:
    return {
        "Geo": {
            "CountryCode": country,
            "Region": "always cleared",
            "City": city,
            "Latitude": latitude,
            "Longitude": longitude,
            "AccuracyRadiusKm": 20,
        },
        "Network": {"CIDR": cidr, "ASNumber": number, "Systems": [{"ASNs": [number]}]},
    }


def _write(
    folder: Path, datatype: str, date: dt.date, machine: str, files: Iterable[tuple[str, bytes]]
) -> None:
    place = folder / f"ndt/{datatype}/{date:%Y/%m/%d}"
    place.mkdir(parents=True, exist_ok=True)
    host = machine.removesuffix("-again")
    hour = 23 if machine != host else 12
    path = place / f"{date:%Y%m%d}T{hour}0000.000000Z-{datatype}-{host}-ndt.tgz"
    buffer = io.BytesIO()
    stamp = int(dt.datetime.combine(date, dt.time(hour), dt.UTC).timestamp())
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name, content in files:
            entry = tarfile.TarInfo(f"{date:%Y/%m/%d}/{name}")
            entry.size, entry.mtime = len(content), stamp
            entry.pax_headers = {
                "MLAB.datatype": datatype,
                "MLAB.experiment.name": "ndt",
                "MLAB.pusher.image": "measurementlab/pusher:v1.20",
                "MLAB.server.name": f"{host}.measurement-lab.org",
            }
            tar.addfile(entry, io.BytesIO(content))
    path.write_bytes(buffer.getvalue())


def _dump(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _stamp(time: dt.datetime) -> str:
    return time.isoformat(timespec="microseconds").replace("+00:00", "123Z")
