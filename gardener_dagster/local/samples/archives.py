"""Sample archives in M-Lab's format, and what must become of them.

Deterministic: the same seed and dates give the same bytes. Each date has a few archives of ndt7
from several machines and the matching annotation2, with the irregularities of real days: tests in
two archives; a member that is not JSON; tests without an annotation; tests right after midnight
whose annotations are in the archive of the day before; one that is annotated on both days.
``records`` makes the content of the tests.
"""

import datetime as dt
import gzip
import io
import json
import random
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gardener_dagster.local.samples.records import (
    MACHINES,
    Json,
    Machine,
    annotation_record,
    make_client,
    ndt7_record,
)

TESTS_PER_MACHINE = 34
AFTER_MIDNIGHT = 4
"""Tests of the first machine, right after midnight, annotated in the archive of the day before."""
TWICE = 8
"""Tests of the first machine that are in two archives."""
UNANNOTATED = 7
"""Tests of the last machine without an annotation."""

_BOOTED = dt.datetime(2019, 3, 2, 4, 6, 15, tzinfo=dt.UTC)  # of all machines; part of the UUIDs
_CUT_OFF = b'{"GitShortCommit":"65ed3f0","Version":"v0.20.'
_File = tuple[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The expected counts of a datatype on a date.

    Attributes:
        archives: Objects in the archive bucket.
        rows_loaded: Rows that a parser makes of them.
        duplicates_removed: Duplicates among these rows.
        raw_rows: Rows that are left.
        joined_rows: ``None`` for annotation2, which is not joined.
        annotated_rows: Joined rows with an annotation; ``None`` for annotation2.
    """

    archives: int
    rows_loaded: int
    duplicates_removed: int
    raw_rows: int
    joined_rows: int | None = None
    annotated_rows: int | None = None


@dataclass(frozen=True, kw_only=True)
class _Test:
    uuid: str
    machine: Machine
    start: dt.datetime
    content: Json
    annotation: Json


@dataclass(frozen=True, kw_only=True)
class _Archive:
    """An archive to write."""

    datatype: str
    machine: Machine
    closed: dt.datetime  # in its name
    files: Sequence[_File]


@dataclass(kw_only=True)
class _Day:
    date: dt.date
    tests: list[_Test]
    annotated: list[_Test] = field(default_factory=list)  # annotated in this day's archives


def make_samples(
    folder: Path, dates: Sequence[dt.date], *, seed: int = 7
) -> dict[tuple[str, dt.date], Expected]:
    """Write the archives of some dates.

    Args:
        folder: The archives are ``ndt/<datatype>/YYYY/MM/DD/<name>.tgz`` in it.
        dates: In any order. Annotations in archives of a day that is not among them are lost.
        seed: Seed of the random values; another seed gives other tests.

    Returns:
        The expected counts of each datatype and date, such as ``("ndt7", date)``.
    """
    days = {date: _Day(date=date, tests=_tests(date, seed)) for date in sorted(dates)}
    for day in days.values():
        _annotate(day, days.get(day.date - dt.timedelta(days=1)))
    expected: dict[tuple[str, dt.date], Expected] = {}
    for day in days.values():
        ndt7, annotations = _ndt7_archives(day), _annotation_archives(day)
        for archive in (*ndt7, *annotations):
            _write(folder, day.date, archive)
        before = days.get(day.date - dt.timedelta(days=1))
        readable = {test.uuid for test in [*day.annotated, *(before.annotated if before else ())]}
        expected["ndt7", day.date] = Expected(
            archives=len(ndt7),
            rows_loaded=len(day.tests) + TWICE,
            duplicates_removed=TWICE,
            raw_rows=len(day.tests),
            joined_rows=len(day.tests),
            annotated_rows=sum(test.uuid in readable for test in day.tests),
        )
        expected["annotation2", day.date] = Expected(
            archives=len(annotations),
            rows_loaded=len(day.annotated),
            duplicates_removed=0,
            raw_rows=len(day.annotated),
        )
    return expected


def _tests(date: dt.date, seed: int) -> list[_Test]:
    """Make a date's tests, grouped by machine and sorted by time."""
    chance = random.Random(f"{seed} {date}")  # noqa: S311 - samples, not secrets
    midnight = dt.datetime.combine(date, dt.time(), dt.UTC)
    tests = []
    for machine in MACHINES:
        early = AFTER_MIDNIGHT if machine is MACHINES[0] else 0
        seconds = sorted(
            chance.uniform(1, 4) if number < early else chance.uniform(3600, 86_000)
            for number in range(TESTS_PER_MACHINE)
        )
        for number, second in enumerate(seconds):
            start = midnight + dt.timedelta(seconds=second)
            # The socket's cookie increases as long as the machine is up.
            cookie = (date - _BOOTED.date()).days * 100 + number
            uuid = f"ndt-{machine.pod}_{_BOOTED.timestamp():.0f}_{cookie:016X}"
            opened = start - dt.timedelta(seconds=5)
            client = make_client(chance)
            tests.append(
                _Test(
                    uuid=uuid,
                    machine=machine,
                    start=start,
                    content=ndt7_record(
                        chance, machine, client, uuid, start, download=chance.random() < 0.5
                    ),
                    annotation=annotation_record(machine, client, uuid, opened),
                )
            )
    return tests


def _annotate(day: _Day, before: _Day | None) -> None:
    for number, test in enumerate(day.tests):
        if number < AFTER_MIDNIGHT:  # it was opened on the day before
            if before:
                before.annotated.append(test)
            if number == 0:
                day.annotated.append(test)
        elif number < len(day.tests) - UNANNOTATED:
            day.annotated.append(test)


def _ndt7_archives(day: _Day) -> list[_Archive]:
    files: dict[Machine, list[_File]] = defaultdict(list)
    for number, test in enumerate(day.tests):
        direction = "download" if "Download" in test.content else "upload"
        name = f"ndt7-{direction}-{test.start:%Y%m%dT%H%M%S.%f}Z.{test.uuid}.json"
        content = _dump(test.content)
        if number % 3:  # some servers compress each file
            name, content = f"{name}.gz", gzip.compress(content, mtime=0)
        files[test.machine].append((name, content))
    first, second = MACHINES[:2]
    again = files[first][AFTER_MIDNIGHT : AFTER_MIDNIGHT + TWICE]
    files[second].insert(3, (f"ndt7-download-{day.date:%Y%m%d}T120000.000001Z.json", _CUT_OFF))
    return [
        *(_archive("ndt7", machine, day.date, some) for machine, some in files.items()),
        _archive("ndt7", first, day.date, again, hour=23),
    ]


def _annotation_archives(day: _Day) -> list[_Archive]:
    files: dict[Machine, list[_File]] = defaultdict(list)
    for test in day.annotated:
        files[test.machine].append((f"{test.uuid}.json", _dump(test.annotation)))
    return [_archive("annotation2", machine, day.date, some) for machine, some in files.items()]


def _archive(
    datatype: str, machine: Machine, date: dt.date, files: Sequence[_File], hour: int = 22
) -> _Archive:
    closed = dt.datetime.combine(date, dt.time(hour, 38, 53, 425_987), dt.UTC)
    return _Archive(datatype=datatype, machine=machine, closed=closed, files=files)


def _write(folder: Path, date: dt.date, archive: _Archive) -> None:
    """Write an archive as M-Lab's pusher does."""
    place = folder / f"ndt/{archive.datatype}/{date:%Y/%m/%d}"
    place.mkdir(parents=True, exist_ok=True)
    name = f"{archive.closed:%Y%m%dT%H%M%S.%f}Z-{archive.datatype}-{archive.machine.host}-ndt.tgz"
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for entry, content in _entries(date, archive):
            tar.addfile(entry, io.BytesIO(content))
    (place / name).write_bytes(buffer.getvalue())


def _entries(date: dt.date, archive: _Archive) -> Iterable[tuple[tarfile.TarInfo, bytes]]:
    machine = archive.machine
    for name, content in archive.files:
        entry = tarfile.TarInfo(f"{date:%Y/%m/%d}/{name}")
        entry.size, entry.mtime = len(content), int(archive.closed.timestamp())
        entry.mode = 0o666
        entry.pax_headers = {
            "MLAB.datatype": archive.datatype,
            "MLAB.experiment.name": "ndt",
            "MLAB.pusher.image": "measurementlab/pusher:v1.16",
            "MLAB.pusher.src.url": "https://github.com/m-lab/pusher/tree/v1.16",
            "MLAB.server.name": f"{machine.name}.{machine.site}.measurement-lab.org",
        }
        yield entry, content


def _dump(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
