"""Compute the metrics in the database: counts, sums and histograms. Changes nothing.

Counts cover all rows ever written, and are read every few seconds. So settled rows are read once
and their sums are cached; only later rows are read each time. Rows up to a number are settled once
no row with a lower number can be committed any more. The names and labels of the metrics are in
``server.metrics``.
"""

import datetime as dt
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, case, func, select, text
from sqlalchemy.engine import Engine

from gardener_api.jobs.job import PARSING_STATES, JobState
from gardener_api.store import schema

STATE_SECONDS = (1, 10, 60, 300, 900, 1800, 3600, 7200, 14400, 28800, 86400)
"""Upper edges of the histogram of the time in a state."""
FILES = (1, 10, 100, 300, 1000, 3000, 10_000, 30_000)
"""Upper edges of the histogram of the objects of a load; the largest day has 12,000."""
BYTES = (10**6, 10**7, 10**8, 10**9, 10**10, 10**11, 10**12)
"""Upper edges of the histogram of the bytes of a load."""
SLOT_SECONDS = (1, 10, 60, 600, 3600, 36_000, 360_000)
"""Upper edges of the histogram of the cost of a query."""
RECENT = dt.timedelta(days=30)
"""Months with no load in this time are omitted; else there would be ten years of series."""

_IN_FLIGHT = sorted(set(JobState) - {JobState.COMPLETE, JobState.WITHDRAWN})
_c, _e, _o = schema.jobs.c, schema.events.c, schema.operations.c


@dataclass(frozen=True, kw_only=True, slots=True)
class InFlight:
    """How many jobs of a source are in a state."""

    experiment: str
    datatype: str
    state: str
    failed_in: str | None
    count: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Happened:
    """The events of one kind of the jobs of a source."""

    experiment: str
    datatype: str
    daily: bool
    state: str  # a JobState or the name of an event, such as PARSE_ERROR
    left: str  # the state before; "" if there is none
    edge: int  # index into STATE_SECONDS of the time in ``left``; its length: above the last edge
    count: int
    seconds: float  # spent in ``left``, in total
    newest: dt.date  # the newest date of these jobs


@dataclass(frozen=True, kw_only=True, slots=True)
class Queue:
    """The queued jobs of one priority."""

    priority: int
    length: int
    oldest: dt.datetime  # when the one that waits longest was queued


@dataclass(frozen=True, slots=True)
class Tally:
    """The number of rows of one kind, and the sum of their measured values."""

    count: int = 0
    total: float = 0.0
    newest: Any = None  # newest date or time; None: no rows

    def __add__(self, other: "Tally") -> "Tally":
        known = [newest for newest in (self.newest, other.newest) if newest is not None]
        return Tally(self.count + other.count, self.total + other.total, max(known, default=None))


Tallies = Mapping[tuple[Any, ...], Tally]


@dataclass(frozen=True, kw_only=True, slots=True)
class Loads:
    """Loads of a source for the dates of one month."""

    experiment: str
    datatype: str
    month: str  # YYYY-MM
    edge: int  # index into FILES or BYTES
    count: int
    total: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """The cost of the queries of a datatype."""

    datatype: str
    operation: str
    edge: int  # index into SLOT_SECONDS
    count: int
    slot_seconds: float


class MetricQueries:
    """The queries for the metrics. Threads may share one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._happened = _Running(schema.events, _select_happened)
        measured = {
            "files": (_o.objects, FILES, ["load"]),
            "bytes": (_o.bytes, BYTES, ["load"]),
            "costs": (_o.slot_seconds, SLOT_SECONDS, ["dedup", "join"]),
        }
        self._operations = {
            name: _Running(schema.operations, _select_operations(*what))
            for name, what in measured.items()
        }

    def in_flight(self) -> list[InFlight]:
        """Count the open and the failed jobs, by source and state."""
        group = (_c.experiment, _c.datatype, _c.state, _c.failed_in)
        query = (
            select(*group, func.count().label("count"))
            .where(_c.state.in_(_IN_FLIGHT))
            .group_by(*group)
        )
        with self._engine.begin() as connection:
            return [InFlight(**row) for row in connection.execute(query).mappings()]

    def held(self) -> dict[tuple[str, str], int]:
        """Count the partitions that wait for a decision, by experiment and datatype."""
        h = schema.held_partitions.c
        query = select(h.experiment, h.datatype, func.count())
        query = query.where(schema.IS_UNSETTLED, h.decision.is_(None))
        with self._engine.begin() as connection:
            rows = connection.execute(query.group_by(h.experiment, h.datatype))
            return {(row[0], row[1]): row[2] for row in rows}

    def queues(self) -> list[Queue]:
        """Return the queue of each priority."""
        query = (
            select(_c.priority, func.count().label("length"), func.min(_c.entered).label("oldest"))
            .where(_c.state == JobState.QUEUED)
            .group_by(_c.priority)
        )
        with self._engine.begin() as connection:
            return [Queue(**row) for row in connection.execute(query).mappings()]

    def last_calls(self) -> dict[str, dt.datetime]:
        """Return the parsers that hold jobs, with the time of their last call."""
        query = (
            select(_c.parser, func.max(_c.updated))
            .where(_c.state.in_(sorted(PARSING_STATES)), _c.updated.is_not(None))
            .group_by(_c.parser)
        )
        with self._engine.begin() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def happened(self) -> list[Happened]:
        """Count all events of jobs."""
        return [
            Happened(
                experiment=experiment,
                datatype=datatype,
                daily=daily,
                state=state,
                left=left,
                edge=edge,
                count=tally.count,
                seconds=tally.total,
                newest=tally.newest,
            )
            for (experiment, datatype, daily, state, left, edge), tally in self._look(
                self._happened
            ).items()
        ]

    def files(self, *, now: dt.datetime) -> list[Loads]:
        """Return the loads of ``RECENT`` months by number of objects, where it is known."""
        return _loads(self._look(self._operations["files"]), since=now - RECENT)

    def bytes(self, *, now: dt.datetime) -> list[Loads]:
        """Return the loads of ``RECENT`` months by total size of their objects."""
        return _loads(self._look(self._operations["bytes"]), since=now - RECENT)

    def costs(self) -> list[Costs]:
        """Return all dedups and joins by slot time."""
        return [
            Costs(
                datatype=_source(month_key)[1],
                operation=operation,
                edge=edge,
                count=tally.count,
                slot_seconds=tally.total,
            )
            for (month_key, operation, edge), tally in self._look(self._operations["costs"]).items()
        ]

    def _look(self, running: "_Running") -> Tallies:
        # Two transactions: the rows are read in a later snapshot than the number.
        with self._lock:
            with self._engine.begin() as connection:
                until = running.settled_number(connection)
            with self._engine.begin() as connection:
                return running.read(connection, until)


Read = Callable[[Connection, ColumnElement[bool]], Tallies]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A number up to which rows are settled once these transactions have ended."""

    number: int
    writers: frozenset[str]


class _Running:
    """Tallies of an append-only table.

    Rows get ascending numbers, but PostgreSQL commits them in any order: a slow transaction commits
    a low number late, and one that fails leaves a permanent gap. A transaction gets a number while
    it holds a write lock on the table. So each number below a committed one belongs to a
    transaction that has ended or still holds such a lock.
    """

    def __init__(self, table: Table, read: Read) -> None:
        self._table, self._number, self._read = table, table.c.number, read
        self._settled: Tallies = {}
        self._until = 0  # the number of the last row that is in `_settled`
        self._candidate: _Candidate | None = None

    def settled_number(self, connection: Connection) -> int:
        """Return the number up to which no further row can be committed."""
        if self._candidate is None:
            newest = connection.execute(select(func.max(self._number))).scalar() or 0
            # Read after `newest`: a transaction that began in between is harmless.
            self._candidate = _Candidate(newest, _writers(connection, self._table))
            unfinished = self._candidate.writers
        else:
            unfinished = self._candidate.writers & _writers(connection, self._table)
        if unfinished:
            return self._until
        number, self._candidate = self._candidate.number, None
        return number

    def read(self, connection: Connection, until: int) -> Tallies:
        """Return the tallies of all rows; those up to ``until`` are not read again."""
        if until > self._until:
            more = self._read(connection, (self._number > self._until) & (self._number <= until))
            self._settled, self._until = _sum([self._settled, more]), until
        return _sum([self._settled, self._read(connection, self._number > self._until)])


def _writers(connection: Connection, table: Table) -> frozenset[str]:
    """Return the unique IDs of open transactions that may have inserted rows into a table.

    SQLite has one writer at a time, so its numbers are committed in order. For PostgreSQL, see
    "pg_locks" and "Table-Level Locks" in its documentation.
    """
    if connection.dialect.name != "postgresql":
        return frozenset()
    query = text(
        "SELECT virtualtransaction FROM pg_locks"
        " WHERE locktype = 'relation' AND relation = to_regclass(:name)"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND mode = 'RowExclusiveLock' AND granted"
    )
    name = connection.dialect.identifier_preparer.format_table(table)
    return frozenset(connection.execute(query, {"name": name}).scalars())


def _sum(parts: Iterable[Tallies]) -> Tallies:
    total: dict[tuple[Any, ...], Tally] = {}
    for part in parts:
        for key, tally in part.items():
            total[key] = total.get(key, Tally()) + tally
    return total


def _select_happened(connection: Connection, rows: ColumnElement[bool]) -> Tallies:
    query = (
        select(
            _c.experiment, _c.datatype, _c.daily, _e.state, _e.left,
            _edge(_e.seconds, STATE_SECONDS),
            func.count(), func.sum(_e.seconds), func.max(_c.date),
        )
        .join(schema.jobs, _e.job == _c.number)
        .where(rows)
        .group_by(_c.experiment, _c.datatype, _c.daily, _e.state, _e.left, "edge")
    )  # fmt: skip
    return _tallies(connection, query)


def _select_operations(measure: Any, edges: Sequence[int], operations: Sequence[str]) -> Read:  # noqa: ANN401 - a column of any number
    # A key ends in YYYYMMDD: without its last two characters it names the source and the month.
    month_key = func.substr(_o.key, 1, func.length(_o.key) - 2).label("month_key")

    def read(connection: Connection, rows: ColumnElement[bool]) -> Tallies:
        query = (
            select(
                month_key, _o.operation, _edge(measure, edges),
                func.count(), func.sum(measure), func.max(_o.at),
            )
            .where(rows, _o.operation.in_(operations), measure.is_not(None))
            .group_by("month_key", _o.operation, "edge")
        )  # fmt: skip
        return _tallies(connection, query)

    return read


def _edge(measure: Any, edges: Sequence[int]) -> ColumnElement[int]:  # noqa: ANN401 - a column of any number
    """Return the index of the first edge that is not below the measured value."""
    whens = [(measure <= edge, i) for i, edge in enumerate(edges)]
    found: ColumnElement[int] = case(*whens, else_=len(edges)).label("edge")
    return found


def _tallies(connection: Connection, query: Select[Any]) -> Tallies:
    """Run a query whose columns up to ``edge`` are a key, and whose others are its tally."""
    size = [column.name for column in query.selected_columns].index("edge") + 1
    rows = connection.execute(query)
    return {
        tuple(row[:size]): Tally(row[size], float(row[size + 1]), *row[size + 2 :]) for row in rows
    }


def _loads(tallies: Tallies, *, since: dt.datetime) -> list[Loads]:
    recent = {month_key for (month_key, *_), tally in tallies.items() if tally.newest >= since}
    loads = []
    for (month_key, _, edge), tally in tallies.items():
        if month_key not in recent:
            continue
        experiment, datatype, month = _source(month_key)
        loads.append(
            Loads(
                experiment=experiment,
                datatype=datatype,
                month=month,
                edge=edge,
                count=tally.count,
                total=tally.total,
            )
        )
    return loads


def _source(month_key: str) -> tuple[str, str, str]:
    """Return experiment, datatype and month of a key without its day."""
    _, experiment, datatype, month = month_key.split("/")
    return experiment, datatype, f"{month[:4]}-{month[4:]}"
