"""Reading the store for the status page: the jobs behind problems, the grid, and parsers.

Every query is bounded, so that pages stay fast in a large store. Lists of whole jobs are in
``job_queries``; the snapshot itself is defined in ``jobs.snapshot``.
"""

import datetime as dt
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Row, Select, func, literal, select
from sqlalchemy.engine import Engine

from gardener_api.jobs.job import (
    DAMAGED_ARCHIVES,
    LEASE_EXPIRED,
    PARSE_ERROR,
    PARSING_STATES,
    TABLE_STATES,
    JobKey,
    JobState,
)
from gardener_api.jobs.snapshot import (
    LATELY,
    DamagedArchives,
    FailedCheck,
    JobFact,
    LostAttempt,
    Snapshot,
    TableRun,
    grid_dates,
)
from gardener_api.store import schema

MOST = 2_000
"""Maximum length of each list that is read."""
MOST_RUNS = 50
"""Maximum number of table runs that are shown."""
PARSER_CHANGES = 2_000
"""Number of the most recently changed jobs in which parsers are searched."""
_c, _e = schema.jobs.c, schema.events.c
_FACT = tuple(_c[field.name] for field in fields(JobFact))
_AFTER_PARSE = TABLE_STATES | {JobState.POST_PROCESSING}
_HEAD = (
    select(*_FACT)
    .where(_c.state == JobState.QUEUED)
    .order_by(_c.priority, _c.date, _c.rank, _c.number)
    .limit(1)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ParserSeen:
    """A parser, as known from its current and recent jobs."""

    address: str
    held: int  # number of jobs
    called: dt.datetime  # its last call about a job


@dataclass(frozen=True, kw_only=True, slots=True)
class Generation:
    """One of the jobs of a key."""

    number: int
    generation: int
    state: JobState
    created: dt.datetime


class Overview:
    """The queries of the status page, except lists of jobs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def snapshot(self, counts: Mapping[JobState, int], *, now: dt.datetime) -> Snapshot:
        """Return the data for problems and the grid.

        Args:
            counts: The number of jobs in each state.
            now: The time.
        """
        days = grid_dates(now)
        first = select(func.min(_c.number)).scalar_subquery()
        with self._engine.begin() as connection:
            recent, complete = _newest(connection.execute(_of_dates(days[0], days[-1])))
            head = connection.execute(_HEAD).one_or_none()
            handed_out = select(func.max(_e.at)).where(_e.state == JobState.INIT)
            return Snapshot(
                most=MOST,
                failed=list(map(_fact, connection.execute(_failed()))),
                in_hand=list(map(_fact, connection.execute(_in(PARSING_STATES)))),
                in_tables=list(map(_fact, connection.execute(_in(_AFTER_PARSE)))),
                lost=[
                    LostAttempt(**row._asdict()) for row in connection.execute(_lost(now - LATELY))
                ],
                failed_checks=[
                    FailedCheck(**row._asdict())
                    for row in connection.execute(_failed_checks(days[0], days[-1]))
                ],
                damaged=[
                    DamagedArchives(**row._asdict())
                    for row in connection.execute(_damaged(now - LATELY))
                ],
                queued=counts.get(JobState.QUEUED, 0),
                head=_fact(head) if head else None,
                handed_out=connection.execute(handed_out).scalar_one(),
                recent=recent,
                complete=complete,
                begun=connection.execute(
                    select(_c.created).where(_c.number == first)
                ).scalar_one_or_none(),
            )

    def table_runs(self) -> list[TableRun]:
        """Return the Dagster runs that are making tables, the most recently active first."""
        running = (
            select(_c.run_id)
            .where(_c.state.in_(sorted(TABLE_STATES)), schema.IS_OF_A_RUN)
            .group_by(_c.run_id)
            .limit(MOST_RUNS)
        )
        place = (_c.run_id, _c.experiment, _c.datatype, _c.state)
        query = (
            select(
                *place,
                func.count().label("jobs"),
                func.min(_c.date).label("first"),
                func.max(_c.date).label("last"),
                func.max(_c.entered).label("newest"),
            )
            .where(_c.run_id.in_(running), schema.IS_OF_A_RUN)
            .group_by(*place)
        )
        groups: dict[str, list[Row[Any]]] = {}
        with self._engine.begin() as connection:
            for row in connection.execute(query):
                groups.setdefault(row.run_id, []).append(row)
        runs = [_table_run(run_id, rows) for run_id, rows in groups.items()]
        return sorted(runs, key=lambda run: run.newest, reverse=True)

    def parsers(self) -> list[ParserSeen]:
        """Return the parsers of current and recent jobs, the most recent caller first.

        A call of ``next`` that gets no job is not stored.
        """
        lately = (
            select(_c.parser, _c.updated)
            .order_by(_c.entered.desc(), _c.number.desc())
            .limit(PARSER_CHANGES)
            .subquery()
        )
        had = select(lately.c.parser, func.max(lately.c.updated), literal(0)).group_by(
            lately.c.parser
        )
        holds = (
            select(_c.parser, func.max(_c.updated), func.count())
            .where(_c.state.in_(sorted(PARSING_STATES)))
            .group_by(_c.parser)
        )
        with self._engine.begin() as connection:
            seen = [*connection.execute(had), *connection.execute(holds)]
        parsers: dict[str, ParserSeen] = {}
        for address, called, held in seen:
            if address and called is not None:
                before = parsers.get(address)
                last = max(called, before.called) if before else called
                parsers[address] = ParserSeen(address=address, held=held, called=last)
        return sorted(parsers.values(), key=lambda parser: parser.called, reverse=True)

    def generations(self, key: JobKey) -> list[Generation]:
        """Return all jobs of a key, the newest first."""
        query = select(*(_c[field.name] for field in fields(Generation)))
        query = query.where(_c.key == str(key)).order_by(_c.generation.desc())
        with self._engine.begin() as connection:
            return [
                Generation(**row._asdict() | {"state": JobState(row.state)})
                for row in connection.execute(query)
            ]


def _in(states: Collection[JobState]) -> Select[Any]:
    return select(*_FACT).where(_c.state.in_(sorted(states))).limit(MOST)


def _failed() -> Select[Any]:
    """Select the newest failed jobs that no newer job of the same key replaces."""
    newest = (
        select(_c.number)
        .where(_c.state == JobState.FAILED)
        .order_by((_c.number + 0).desc())  # without + 0, SQLite would scan all jobs by number
        .limit(MOST)
    )
    return select(*_FACT).where(_c.number.in_(newest), ~_newer_job().exists())


def _newer_job() -> Select[Any]:
    """Select newer jobs of the same key that were not withdrawn."""
    other = schema.jobs.alias()
    return select(other.c.number).where(
        other.c.key == _c.key,
        other.c.generation > _c.generation,
        other.c.state != JobState.WITHDRAWN,
    )


def _damaged(since: dt.datetime) -> Select[Any]:
    """Select the jobs parsed since then with damaged archives that no newer job replaces.

    The text is read from the event: a table stage overwrites the detail of the job.
    """
    lately = (
        select(_c.number)
        .where(_c.entered >= since)
        .order_by(_c.entered.desc(), _c.number.desc())
        .limit(MOST)
    )
    return (
        select(_c.number, _c.experiment, _c.datatype, _c.date, _e.at, _e.detail)
        .join(schema.events, _e.job == _c.number)
        .where(
            _c.number.in_(lately),
            _e.state == JobState.POST_PROCESSING,
            _e.at >= since,
            _e.detail.startswith(DAMAGED_ARCHIVES, autoescape=True),
            ~_newer_job().exists(),
        )
        .order_by(_e.at.desc())
    )


def _lost(since: dt.datetime) -> Select[Any]:
    return (
        select(_c.number, _c.experiment, _c.datatype, _c.date)
        .add_columns(_e.state.label("name"), _e.at, _e.detail)
        .join(schema.events, _e.job == _c.number)
        .where(_e.state.in_([LEASE_EXPIRED, PARSE_ERROR]), _e.at >= since)
        .order_by(_e.at.desc())
        .limit(MOST)
    )


def _failed_checks(first: dt.date, last: dt.date) -> Select[Any]:
    r = schema.check_results.c
    other = schema.jobs.alias()
    newest = (
        select(other.c.number)
        .where(other.c.key == r.key)
        .order_by(other.c.generation.desc())
        .limit(1)
        .scalar_subquery()
    )
    return (
        select(newest.label("number"), r.experiment, r.datatype, r.date)
        .add_columns(r.table, r.name, r.severity, r.description)
        .where(schema.HAS_NOT_PASSED, r.date.between(first, last), newest.is_not(None))
        .order_by(r.date.desc(), r.experiment, r.datatype, r.table, r.name)
        .limit(MOST)
    )


def _table_run(run_id: str, rows: list[Row[Any]]) -> TableRun:
    """Build the run from its rows, one per source and state."""
    states: Counter[JobState] = Counter()
    for row in rows:
        states[JobState(row.state)] += row.jobs
    return TableRun(
        run_id=run_id,
        states=states,
        sources=sorted({f"{row.experiment}/{row.datatype}" for row in rows}),
        first=min(row.first for row in rows),
        last=max(row.last for row in rows),
        newest=max(row.newest for row in rows),
    )


def _of_dates(first: dt.date, last: dt.date) -> Select[Any]:
    return (
        select(*_FACT)
        .where(_c.date >= first, _c.date <= last)
        .order_by(_c.date.desc(), _c.rank, _c.number.desc())
    )


def _newest(rows: Iterable[Row[Any]]) -> tuple[list[JobFact], set[tuple[str, dt.date]]]:
    """Return the newest job of each source and date, and those that have a complete job.

    The rows come with the newest first. A withdrawn job counts only if there is no other.
    """
    newest: dict[tuple[str, dt.date], JobFact] = {}
    complete = set()
    for row in rows:
        job = _fact(row)
        of = (job.source, job.date)
        shown = newest.get(of)
        if shown is None or (
            shown.state is JobState.WITHDRAWN and job.state is not JobState.WITHDRAWN
        ):
            newest[of] = job
        if job.state is JobState.COMPLETE:
            complete.add(of)
    return list(newest.values()), complete


def _fact(row: Row[Any]) -> JobFact:
    values = row._asdict()
    values["state"] = JobState(values["state"])
    if values["failed_in"] is not None:
        values["failed_in"] = JobState(values["failed_in"])
    return JobFact(**values)
