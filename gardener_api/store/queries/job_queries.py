"""Reading the store: facts for the sensors, and what pages show. Changes nothing.

What the metrics show is ``metric_queries``'.
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
"""A search for a text finds so many jobs at most."""
_c = schema.jobs.c
HANDOUT_ORDER = (_c.priority, _c.date, _c.rank, _c.number)
"""The order in which jobs are handed out."""


class JobOrder(StrEnum):
    """In which order a list of jobs comes."""

    RECENT = "recent"  # the newest change of state first
    NEXT = "next"  # as they are handed out
    DATE = "date"  # the newest date first
    SOURCE = "source"  # by name, each with its newest date first
    STATE = "state"  # by name, each as they are handed out


# A column, and whether its largest value comes first. Each but NEXT is the order of an index.
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
    """Everything that can be asked of a store without changing it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.overview = Overview(engine)
        self.plans = PlanQueries(engine)
        self.backfills = BackfillQueries(engine)

    def ping(self) -> str:
        """Ask the database for a sign of life.

        Returns:
            How it is, for people.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: It gave none.
            StoreError: It is no longer of the version that this gardener knows.
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
        """The job of that number."""
        return self._one(select_jobs().where(_c.number == number))

    def latest(self, key: JobKey) -> Job | None:
        """The newest job of the key."""
        return self._one(select_jobs().where(is_latest([str(key)])))

    def events(self, number: int) -> list[Event]:
        """What happened to a job, oldest first."""
        c = schema.events.c
        query = select(c.job, c.at, c.attempt, c.state, c.detail, c.left, c.seconds)
        with self._engine.begin() as connection:
            rows = connection.execute(query.where(c.job == number).order_by(c.number))
            return [Event(**row) for row in rows.mappings()]

    def requests(self, number: int) -> list[Request]:
        """Everybody who ever asked for a job, oldest first."""
        with self._engine.begin() as connection:
            return _requests(connection, [number]).get(number, [])

    # -- what a requester waits for

    def unreported(
        self, requester: str, *, run_id: str, chain: ChainRule | None = None
    ) -> list[Outcome]:
        """How the jobs ended that this run asked for, where it has not reported it yet.

        A job has ended for a run when its parse is done, when it failed or was withdrawn, and when
        somebody took the run's request back. Left out is what another run of this requester has
        asked for again since: that run waits for it.

        Args:
            requester: In whose name the run asks.
            run_id: The run.
            chain: When a parsed job whose tables the request covers has ended for the run. Left
                out: once it is parsed, as any other.
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
        """Which of these jobs another run of the same requester has asked for since this run did.

        Returns:
            That run's ID, by the number of the job.
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
        """The runs that asked for jobs which no parser has done yet, and did not take that back."""
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
        """How many of the jobs that this requester asked for are in each state."""
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
        """Jobs whose parse is done and whose tables are not begun, the most urgent first.

        Args:
            first: Of this date and later ones only.
            before: Of dates before this one only.
            limit: At most so many.
        """
        query = select_jobs().where(_c.state == JobState.POST_PROCESSING)
        if first is not None:
            query = query.where(_c.date >= first)
        if before is not None:
            query = query.where(_c.date < before)
        return self._parsed(query.limit(limit))

    def requests_of(self, numbers: Collection[int]) -> dict[int, list[Request]]:
        """Everybody who ever asked for these jobs, by the job's number, the oldest first."""
        with self._engine.begin() as connection:
            return _requests(connection, sorted(numbers))

    def unreported_parses(self, *, live_runs: Collection[str] = ()) -> list[Parsed]:
        """Every job whose parse is done and was never reported to anybody, with who wants it.

        Args:
            live_runs: Left out is what one of these still waits for: it reports that itself.
        """
        r = schema.requests.c
        theirs = exists().where(
            r.job == _c.number, r.withdrawn.is_(None), r.run_id.in_(sorted(live_runs))
        )
        return self._parsed(select_jobs().where(schema.IS_UNREPORTED, ~theirs))

    def runs_of_unreported_parses(self) -> set[str]:
        """The runs that want a job whose parse is done and was never reported to anybody."""
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
        """Every job that is in a stage of its tables."""
        return self._all(
            select_jobs().where(_c.state.in_(sorted(TABLE_STATES))).order_by(_c.number)
        )

    def open_keys(self, keys: Collection[JobKey]) -> dict[JobKey, Job]:
        """Which of these keys have a job that has not ended, and that job."""
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
        """A page of the list of jobs.

        Args:
            experiment: Only of this one.
            datatype: Only of this one.
            first: Only of this date and later ones.
            last: Only of this date and earlier ones.
            states: Only in one of these.
            text: Only where it stands in the key, the detail or the error, in any case; of these
                the newest ``MOST_FOUND`` jobs.
            limit: At most so many.
            offset: Without the first so many.
            order: Which come first.
            reverse: The order turned round.
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
            # Few of many: found first, then put in order. SQLite would walk along the order, and
            # look for each row on the disk, where they lie in another one.
            found = numbers
            if text:
                found = found.where(self._has(text)).order_by(_c.number.desc()).limit(MOST_FOUND)
            numbers = select(_c.number).where(_c.number.in_(found))
        numbers = numbers.order_by(*_ordered(order, reverse=reverse)).limit(limit).offset(offset)
        # Numbers first: what comes before the page is then passed over in an index alone.
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
        """How many jobs are in each state."""
        query = select(_c.state, func.count()).group_by(_c.state)
        with self._engine.begin() as connection:
            return {JobState(state): count for state, count in connection.execute(query)}

    # -- how

    def _has(self, text: str) -> ColumnElement[bool]:
        """A job has the text in its key, its detail or its error."""
        pattern = "%" + re.sub(r"([%_\\])", r"\\\1", text) + "%"
        # SQLite's LIKE ignores case anyway; with lower() it takes thrice the time.
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
