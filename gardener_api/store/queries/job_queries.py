"""Reading the store: facts for the sensors, and what pages show. Changes nothing.

Queries for metrics are in ``metric_queries``.
"""

import datetime as dt
import re
from collections.abc import Collection, Iterator, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, exists, func, or_, select
from sqlalchemy.engine import Engine

from gardener_api.jobs.job import (
    ENDED,
    PARSING_STATES,
    TABLE_STATES,
    Event,
    Job,
    JobKey,
    JobState,
    Outcome,
    Parsed,
    Request,
)
from gardener_api.jobs.table_stages import ChainRule
from gardener_api.store import schema
from gardener_api.store.queries.backfill_queries import BackfillQueries
from gardener_api.store.queries.plan_queries import PlanQueries
from gardener_api.store.queries.snapshot_queries import Overview
from gardener_api.store.rows import chunks, is_latest, job_of, select_jobs

MOST_FOUND = 10_000
"""Maximum number of jobs that a text search finds."""
_c = schema.jobs.c
HANDOUT_ORDER = (_c.priority, _c.date, _c.rank, _c.number)
"""The order in which jobs are handed out."""


class JobOrder(StrEnum):
    """The order of a list of jobs."""

    RECENT = "recent"  # the newest change of state first
    NEXT = "next"  # as they are handed out
    DATE = "date"  # the newest date first
    SOURCE = "source"  # by name, each with its newest date first
    STATE = "state"  # by name, each as they are handed out


# Columns, and whether each is descending. Every order but NEXT is that of an index.
_ORDERS: dict[JobOrder, tuple[tuple[Any, bool], ...]] = {
    JobOrder.RECENT: ((_c.entered, True), (_c.number, True)),
    JobOrder.NEXT: tuple((column, False) for column in HANDOUT_ORDER),
    JobOrder.DATE: ((_c.date, True), (_c.rank, False), (_c.number, True)),
    JobOrder.SOURCE: (
        (_c.experiment, False),
        (_c.datatype, False),
        (_c.date, True),
        (_c.number, True),
    ),
    JobOrder.STATE: tuple((column, False) for column in (_c.state, *HANDOUT_ORDER)),
}


def _ordered(order: JobOrder, *, reverse: bool) -> Iterator[ColumnElement[Any]]:
    for column, largest_first in _ORDERS[order]:
        yield column.desc() if largest_first is not reverse else column.asc()


class JobQueries:
    """The read-only queries of a store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.overview = Overview(engine)
        self.plans = PlanQueries(engine)
        self.backfills = BackfillQueries(engine)

    def ping(self) -> str:
        """Check that the database answers, and has the expected version.

        Returns:
            The status, for people.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: The database did not answer.
            StoreError: The store no longer has the version that this gardener uses.
        """
        with self._engine.begin() as connection:
            found = connection.execute(select(schema.version.c.version_num)).scalar_one()
        if found != schema.NEWEST:
            raise schema.StoreError(
                f"it is of version {found}, and this gardener of {schema.NEWEST}: restart it"
            )
        return f"answers, version {found}"

    # -- one job

    def job(self, number: int) -> Job | None:
        """Return the job with this number; ``None`` if there is none."""
        return self._one(select_jobs().where(_c.number == number))

    def latest(self, key: JobKey) -> Job | None:
        """Return the newest job of the key; ``None`` if there is none."""
        return self._one(select_jobs().where(is_latest([str(key)])))

    def events(self, number: int) -> list[Event]:
        """Return the events of a job, the oldest first."""
        c = schema.events.c
        query = select(c.job, c.at, c.attempt, c.state, c.detail, c.left, c.seconds)
        with self._engine.begin() as connection:
            rows = connection.execute(query.where(c.job == number).order_by(c.number))
            return [Event(**row) for row in rows.mappings()]

    def requests(self, number: int) -> list[Request]:
        """Return all requests for a job, the oldest first."""
        with self._engine.begin() as connection:
            return _requests(connection, [number]).get(number, [])

    # -- what a requester waits for

    def unreported(
        self, requester: str, *, run_id: str, chain: ChainRule | None = None
    ) -> list[Outcome]:
        """Return the jobs that ended for a run and that the run has not reported yet.

        A job has ended for a run when it is parsed, failed or withdrawn, or when the run's request
        was withdrawn. Requests that another run has taken over are excluded: that run waits for
        them.

        Args:
            requester: The requester that the run acts for.
            run_id: The run.
            chain: When a parsed job ends for the run if the request covers its tables.
                ``None``: once it is parsed, as for any other request.
        """
        r = schema.requests.c
        is_parsed: ColumnElement[bool] = _c.parsed.is_not(None)
        if chain is not None:
            is_parsed &= or_(
                r.covers_tables.is_(False),
                and_(_c.state.in_(sorted(ENDED)), _c.entered < chain.ended_before),
                _c.parsed < chain.parsed_before,
            )
        never_parsed = and_(
            _c.parsed.is_(None), _c.state.in_([JobState.FAILED, JobState.WITHDRAWN])
        )
        is_over = or_(is_parsed, never_parsed, r.withdrawn.is_not(None))
        query = (
            select_jobs()
            .add_columns(*schema.requests.c)
            .join(schema.requests, r.job == _c.number)
            .where(r.requester == requester, r.reported.is_(None), r.run_id == run_id)
            .where(is_over)
            .order_by(_c.date, _c.rank, _c.number)
        )
        width = len(schema.requests.c)
        with self._engine.begin() as connection:
            return [
                Outcome(job=job_of(row[:-width]), request=_request(row[-width:]))
                for row in connection.execute(query)
            ]

    def taken_over(
        self, requester: str, *, run_id: str, numbers: Collection[int]
    ) -> dict[int, str]:
        """Return which of these jobs another run of the same requester has taken over.

        Returns:
            The ID of that run, by the number of the job.
        """
        r = schema.requests.c
        found: dict[int, str] = {}
        with self._engine.begin() as connection:
            for chunk in chunks(sorted(numbers)):
                query = select(r.job, r.run_id).where(
                    r.job.in_(chunk), r.requester == requester, r.run_id != run_id
                )
                found |= {row.job: row.run_id for row in connection.execute(query)}
        return found

    def runs_waiting(self) -> set[str]:
        """Return the runs with active requests for jobs that are queued or at a parser."""
        r = schema.requests.c
        states = sorted({JobState.QUEUED, *PARSING_STATES})
        query = (
            select(r.run_id)
            .join(schema.jobs, r.job == _c.number)
            .where(_c.state.in_(states), r.withdrawn.is_(None))
            .distinct()
        )
        with self._engine.begin() as connection:
            return set(connection.execute(query).scalars())

    def waiting(self, requester: str) -> dict[JobState, int]:
        """Count the jobs with an active request of this requester, by state."""
        r = schema.requests.c
        query = (
            select(_c.state, func.count())
            .join(schema.requests, r.job == _c.number)
            .where(r.requester == requester, r.withdrawn.is_(None))
            .group_by(_c.state)
        )
        with self._engine.begin() as connection:
            return {JobState(state): count for state, count in connection.execute(query)}

    # -- facts for the sensors

    def parsed_jobs(
        self,
        *,
        first: dt.date | None = None,
        before: dt.date | None = None,
        limit: int | None = None,
    ) -> list[Parsed]:
        """Return the parsed jobs whose tables are not started, the most urgent first.

        Args:
            first: Only jobs of this date and later ones.
            before: Only jobs of dates before this one.
            limit: Maximum number of jobs.
        """
        query = select_jobs().where(_c.state == JobState.POST_PROCESSING)
        if first is not None:
            query = query.where(_c.date >= first)
        if before is not None:
            query = query.where(_c.date < before)
        return self._parsed(query.limit(limit))

    def requests_of(self, numbers: Collection[int]) -> dict[int, list[Request]]:
        """Return all requests for these jobs, by the job's number, the oldest first."""
        with self._engine.begin() as connection:
            return _requests(connection, sorted(numbers))

    def unreported_parses(self, *, live_runs: Collection[str] = ()) -> list[Parsed]:
        """Return every parsed job that was never reported, with its requests.

        Args:
            live_runs: Exclude jobs that one of these runs requests: it reports them itself.
        """
        r = schema.requests.c
        theirs = exists().where(
            r.job == _c.number, r.withdrawn.is_(None), r.run_id.in_(sorted(live_runs))
        )
        return self._parsed(select_jobs().where(schema.IS_UNREPORTED, ~theirs))

    def runs_of_unreported_parses(self) -> set[str]:
        """Return the runs with active requests for parsed jobs that were never reported."""
        r = schema.requests.c
        query = (
            select(r.run_id)
            .join(schema.jobs, r.job == _c.number)
            .where(schema.IS_UNREPORTED, r.withdrawn.is_(None))
            .distinct()
        )
        with self._engine.begin() as connection:
            return set(connection.execute(query).scalars())

    def in_tables(self) -> list[Job]:
        """Return every job that is in a stage of its tables."""
        return self._all(
            select_jobs().where(_c.state.in_(sorted(TABLE_STATES))).order_by(_c.number)
        )

    def open_keys(self, keys: Collection[JobKey]) -> dict[JobKey, Job]:
        """Return the open job of each of these keys that has one."""
        found = {}
        with self._engine.begin() as connection:
            for chunk in chunks(sorted({str(key) for key in keys})):
                query = select_jobs().where(schema.IS_OPEN, _c.key.in_(chunk))
                for row in connection.execute(query):
                    job = job_of(row)
                    found[job.key] = job
        return found

    # -- pages

    def jobs(
        self,
        *,
        experiment: str | None = None,
        datatype: str | None = None,
        first: dt.date | None = None,
        last: dt.date | None = None,
        states: Collection[JobState] | None = None,
        text: str | None = None,
        limit: int,
        offset: int = 0,
        order: JobOrder = JobOrder.RECENT,
        reverse: bool = False,
    ) -> list[Job]:
        """Return a page of the list of jobs.

        Args:
            experiment: Only jobs of this experiment.
            datatype: Only jobs of this datatype.
            first: Only jobs of this date and later ones.
            last: Only jobs of this date and earlier ones.
            states: Only jobs in one of these states.
            text: Only jobs with this text in the key, the detail or the error, ignoring case; at
                most the newest ``MOST_FOUND`` of them.
            limit: Maximum number of jobs.
            offset: Number of jobs to skip.
            order: The sort order.
            reverse: Whether to reverse the order.
        """
        wanted: list[ColumnElement[bool]] = [
            column == value
            for column, value in ((_c.experiment, experiment), (_c.datatype, datatype))
            if value is not None
        ]
        if first is not None:
            wanted.append(_c.date >= first)
        if last is not None:
            wanted.append(_c.date <= last)
        if states is not None:
            wanted.append(_c.state.in_(sorted(states)))
        numbers = select(_c.number).where(*wanted)
        if text or (states and JobState.COMPLETE not in states):
            # Few jobs match: find them first, then sort. Else SQLite would scan the index of the
            # order and read every row from the disk, in random order.
            found = numbers
            if text:
                found = found.where(self._has(text)).order_by(_c.number.desc()).limit(MOST_FOUND)
            numbers = select(_c.number).where(_c.number.in_(found))
        numbers = numbers.order_by(*_ordered(order, reverse=reverse)).limit(limit).offset(offset)
        # Numbers first: the jobs before the page are then skipped in an index alone.
        with self._engine.begin() as connection:
            page = connection.execute(numbers).scalars().all()
            jobs = {
                job.number: job
                for chunk in chunks(page)
                for job in map(
                    job_of, connection.execute(select_jobs().where(_c.number.in_(chunk)))
                )
            }
        return [jobs[number] for number in page]

    def counts(self) -> dict[JobState, int]:
        """Return the number of jobs in each state."""
        query = select(_c.state, func.count()).group_by(_c.state)
        with self._engine.begin() as connection:
            return {JobState(state): count for state, count in connection.execute(query)}

    # -- helpers

    def _has(self, text: str) -> ColumnElement[bool]:
        """Condition that a job has the text in its key, its detail or its error."""
        pattern = "%" + re.sub(r"([%_\\])", r"\\\1", text) + "%"
        # SQLite's LIKE ignores case anyway; lower() would take three times as long.
        # A key has no capitals, and most jobs have neither detail nor error.
        like = "like" if self._engine.dialect.name == "sqlite" else "ilike"
        return or_(
            _c.key.like(pattern.lower(), escape="\\"),
            *(
                and_(column != "", getattr(column, like)(pattern, escape="\\"))
                for column in (_c.detail, _c.error)
            ),
        )

    def _one(self, query: Select[Any]) -> Job | None:
        with self._engine.begin() as connection:
            row = connection.execute(query).one_or_none()
        return job_of(row) if row else None

    def _all(self, query: Select[Any]) -> list[Job]:
        with self._engine.begin() as connection:
            return [job_of(row) for row in connection.execute(query)]

    def _parsed(self, query: Select[Any]) -> list[Parsed]:
        with self._engine.begin() as connection:
            jobs = [job_of(row) for row in connection.execute(query.order_by(*HANDOUT_ORDER))]
            wanted = _requests(connection, [job.number for job in jobs])
        return [
            Parsed(
                job=job,
                requests=tuple(r for r in wanted.get(job.number, ()) if r.withdrawn is None),
                withdrawn=tuple(r for r in wanted.get(job.number, ()) if r.withdrawn is not None),
            )
            for job in jobs
        ]


def _requests(connection: Connection, numbers: Sequence[int]) -> dict[int, list[Request]]:
    c = schema.requests.c
    found: dict[int, list[Request]] = {}
    for chunk in chunks(numbers):
        query = select(*c).where(c.job.in_(chunk)).order_by(c.asked, c.requester)
        for row in connection.execute(query):
            found.setdefault(row.job, []).append(_request(row))
    return found


def _request(row: Sequence[Any]) -> Request:
    fields = dict(zip(schema.requests.c.keys(), row, strict=True))
    del fields["job"]
    return Request(**fields)
