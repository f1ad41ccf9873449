"""Read what was made of each date and what it cost, to plan backfills and estimate their cost.

Queries are per source and range of dates, so that a year of all sources is read in a second or two.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select
from sqlalchemy.engine import Engine

from gardener_api.jobs.job import JobKey, JobState, Priority
from gardener_api.store import schema
from gardener_api.store.rows import parser_versions

_c, _o = schema.jobs.c, schema.operations.c
_QUERIES = frozenset({"dedup", "join"})
"""The operations that are BigQuery queries: their bytes are those processed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """The cost of parsing one or several dates and making their tables."""

    archives: int = 0
    archive_bytes: int = 0  # of those archives whose size is known
    archives_unsized: int = 0  # archives whose size was not recorded
    parser_seconds: float = 0.0  # of the successful attempt
    rows: int = 0  # in raw
    bytes_loaded: int = 0  # of the objects that parsers wrote
    load_seconds: float = 0.0
    bytes_processed: int = 0  # by dedup and join
    bytes_billed: int = 0
    slot_seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            archives=self.archives + other.archives,
            archive_bytes=self.archive_bytes + other.archive_bytes,
            archives_unsized=self.archives_unsized + other.archives_unsized,
            parser_seconds=self.parser_seconds + other.parser_seconds,
            rows=self.rows + other.rows,
            bytes_loaded=self.bytes_loaded + other.bytes_loaded,
            load_seconds=self.load_seconds + other.load_seconds,
            bytes_processed=self.bytes_processed + other.bytes_processed,
            bytes_billed=self.bytes_billed + other.bytes_billed,
            slot_seconds=self.slot_seconds + other.slot_seconds,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class DateRecord:
    """What the store knows of a source on a date.

    Attributes:
        state: State of the newest job that was not withdrawn; ``None``: there is none.
        created: When that job was created.
        parsed: When the date was last parsed; ``None``: never.
        made: When each of its tables ``<dataset>.<table>`` was last written.
        versions: Parser versions of the rows in raw; empty: not known.
        cost: Cost of its last parse and of its last table operations; ``None``: not known.
    """

    state: JobState | None = None
    created: dt.datetime | None = None
    parsed: dt.datetime | None = None
    made: Mapping[str, dt.datetime] = field(default_factory=dict)
    versions: tuple[str, ...] = ()
    cost: Cost | None = None


class PlanQueries:
    """The queries for backfill plans."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def records(
        self,
        bucket: str,
        source: str,
        tables: Sequence[str],
        first: dt.date,
        last: dt.date,
    ) -> dict[dt.date, DateRecord]:
        """Return the record of each date of a source that has a job or a written table.

        Args:
            bucket: Bucket of its archives.
            source: ``<experiment>/<datatype>``.
            tables: Its raw table, and its joined table if it has one, as ``<dataset>.<table>``.
            first: The first date.
            last: The last date.
        """
        experiment, _, datatype = source.partition("/")
        key = JobKey(bucket=bucket, experiment=experiment, datatype=datatype, date=first)
        ends = (str(key), str(replace(key, date=last)))
        with self._engine.begin() as connection:
            jobs = _jobs(connection, bucket, experiment, datatype, first, last)
            made, rows = _partitions(connection, tables, first, last)
            versions = _versions(connection, tables[0], first, last)
            operations = _operations(connection, ends)
        return {
            date: DateRecord(
                state=jobs.get(date, _NO_JOB).state,
                created=jobs.get(date, _NO_JOB).created,
                parsed=jobs.get(date, _NO_JOB).parsed,
                made=made.get(date, {}),
                versions=versions.get(date, ()),
                cost=_cost(jobs.get(date, _NO_JOB), operations.get(date), rows.get(date, 0)),
            )
            for date in jobs.keys() | made.keys()
        }

    def states(
        self, bucket: str, source: str, first: dt.date, last: dt.date
    ) -> dict[dt.date, JobState]:
        """Return, by date, the state of a source's newest job that was not withdrawn.

        Args:
            bucket: Bucket of its archives.
            source: ``<experiment>/<datatype>``.
            first: The first date.
            last: The last date.
        """
        experiment, _, datatype = source.partition("/")
        with self._engine.begin() as connection:
            jobs = _jobs(connection, bucket, experiment, datatype, first, last)
        return {date: of.state for date, of in jobs.items() if of.state is not None}

    def queued(self, priority: Priority) -> int:
        """Count the queued jobs of this priority or a more urgent one."""
        query = select(func.count()).where(_c.state == JobState.QUEUED, _c.priority <= priority)
        with self._engine.begin() as connection:
            return int(connection.execute(query).scalar_one())


@dataclass(slots=True)
class _Jobs:
    """What is known from all jobs of a date."""

    state: JobState | None = None
    created: dt.datetime | None = None
    parsed: dt.datetime | None = None
    archives: int = 0
    archive_bytes: int | None = None
    parser_seconds: float = 0.0


_NO_JOB = _Jobs()


def _jobs(
    connection: Connection,
    bucket: str,
    experiment: str,
    datatype: str,
    first: dt.date,
    last: dt.date,
) -> dict[dt.date, _Jobs]:
    query = (
        select(_c.date, _c.state, _c.created, _c.archives, _c.archive_bytes, _c.leased, _c.parsed)
        .where(
            _c.bucket == bucket,
            _c.experiment == experiment,
            _c.datatype == datatype,
            _c.date.between(first, last),
        )
        .order_by(_c.date, _c.generation)
    )
    found: dict[dt.date, _Jobs] = {}
    for date, state, created, archives, size, leased, parsed in connection.execute(query):
        jobs = found.setdefault(date, _Jobs())
        if state != JobState.WITHDRAWN:
            jobs.state, jobs.created = JobState(state), created
        if parsed is not None:
            jobs.parsed, jobs.archives, jobs.archive_bytes = parsed, archives or 0, size
            jobs.parser_seconds = (parsed - leased).total_seconds() if leased else 0.0
    return found


def _partitions(
    connection: Connection, tables: Sequence[str], first: dt.date, last: dt.date
) -> tuple[dict[dt.date, dict[str, dt.datetime]], dict[dt.date, int]]:
    """Return when each table was last written, and the rows of the first table, by date."""
    p = schema.partitions.c
    query = select(p.table, p.date, p.made, p.rows).where(
        p.table.in_(tables), p.date.between(first, last), p.version > 0
    )
    made: dict[dt.date, dict[str, dt.datetime]] = {}
    rows: dict[dt.date, int] = {}
    for table, date, at, count in connection.execute(query):
        made.setdefault(date, {})[table] = at
        if table == tables[0]:
            rows[date] = count
    return made, rows


def _versions(
    connection: Connection, raw: str, first: dt.date, last: dt.date
) -> dict[dt.date, tuple[str, ...]]:
    """Return the parser versions of the newest version of each partition."""
    v = schema.partition_versions.c
    query = (
        select(v.date, v.parser_versions)
        .where(v.table == raw, v.date.between(first, last))
        .order_by(v.version)
    )
    return {date: parser_versions(text) for date, text in connection.execute(query)}


def _operations(connection: Connection, ends: tuple[str, str]) -> dict[dt.date, dict[str, Any]]:
    """Return the last operation of each kind, by date."""
    newest: ColumnElement[int] = func.max(_o.number)
    numbers = select(newest).where(_o.key.between(ends[0], ends[1])).group_by(_o.key, _o.operation)
    columns = (_o.key, _o.operation, _o.bytes, _o.bytes_billed, _o.slot_seconds, _o.seconds)
    found: dict[dt.date, dict[str, Any]] = {}
    for row in connection.execute(select(*columns).where(_o.number.in_(numbers))):
        found.setdefault(_date_of(row.key), {})[row.operation] = row
    return found


def _cost(jobs: _Jobs, operations: Mapping[str, Any] | None, rows: int) -> Cost | None:
    """Return the cost of a date; ``None`` if it has no parse and no known operation."""
    if operations is None and jobs.parsed is None:
        return None
    done = operations or {}
    load = done.get("load")
    queries = [row for operation, row in done.items() if operation in _QUERIES]
    return Cost(
        archives=jobs.archives,
        archive_bytes=jobs.archive_bytes or 0,
        archives_unsized=jobs.archives if jobs.archive_bytes is None else 0,
        parser_seconds=jobs.parser_seconds,
        rows=rows,
        bytes_loaded=load.bytes if load else 0,
        load_seconds=load.seconds if load else 0.0,
        bytes_processed=sum(row.bytes for row in queries),
        bytes_billed=sum(row.bytes_billed for row in queries),
        slot_seconds=sum(row.slot_seconds for row in done.values()),
    )


def _date_of(key: str) -> dt.date:
    return dt.date(int(key[-8:-4]), int(key[-4:-2]), int(key[-2:]))
