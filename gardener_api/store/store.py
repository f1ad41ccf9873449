"""The job store: every change of a job, each call one committed transaction.

The package ``jobs`` decides how a job changes; ``queries`` has the reads, ``table_versions`` the
versions of BigQuery's tables. A method returns after its commit.
"""

import datetime as dt
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from gardener_api.jobs import job as moves
from gardener_api.jobs import parser_calls, table_stages
from gardener_api.jobs.job import (
    OPEN,
    PARSING_STATES,
    Change,
    Job,
    JobKey,
    JobRequest,
    JobState,
    ParseReport,
)
from gardener_api.jobs.observations import observations
from gardener_api.jobs.parser_calls import Call, LeasePolicy, Next, NoJob, Refusal
from gardener_api.store import job_log, requests, schema
from gardener_api.store.engine import open_engine, writing
from gardener_api.store.migrate import prepare
from gardener_api.store.outbox import Outbox
from gardener_api.store.publishing.changes import Changes
from gardener_api.store.publishing.held import HeldPartitions
from gardener_api.store.queries.date_queries import DayQueries
from gardener_api.store.queries.job_queries import HANDOUT_ORDER, JobQueries
from gardener_api.store.queries.metric_queries import MetricQueries
from gardener_api.store.requests import (
    asked_before,
    insert_requests,
    request_rows,
    withdraw_requests,
    withdraw_unwanted,
    without_repeats,
)
from gardener_api.store.rows import (
    chunks,
    insert_jobs,
    is_latest,
    job_of,
    locked,
    locking,
    merged,
    save_jobs,
    select_jobs,
)
from gardener_api.store.tables.check_results import Checks
from gardener_api.store.tables.partition_locks import PartitionLocks
from gardener_api.store.tables.table_versions import TableLog
from gardener_api.store.tables.tables_backfills import TablesBackfills

log = logging.getLogger(__name__)
T = TypeVar("T")

_TRIES = 5
# Between two transactions of requests, so that the waiting sidecar gets the write lock.
_PAUSE_SECONDS = 0.002
_c = schema.jobs.c

# Built once: building the two statements of a burst of calls takes as long as ten calls.
_BY_WIRE_ID = locking(select_jobs().where(_c.wire_id.in_(bindparam("ids", expanding=True))))
_NEXT = (
    select_jobs()
    .where(_c.state == JobState.QUEUED)
    .order_by(*HANDOUT_ORDER)
    .limit(bindparam("count"))
    .with_for_update(skip_locked=True)
)
_RAISE_PRIORITY = (
    update(schema.jobs).where(_c.number == bindparam("of")).values(priority=bindparam("priority"))
)


class JobStore(JobQueries):
    """The store of a gardener. Threads and processes may share one."""

    def __init__(self, engine: Engine, policy: LeasePolicy, *, observed: bool = False) -> None:
        super().__init__(engine)
        self.outbox = Outbox(engine)
        self._observed = observed
        self.tables = TableLog(engine)
        self.partition_locks = PartitionLocks(engine)
        self.checks = Checks(engine)
        self.held = HeldPartitions(engine)
        self.tables_backfills = TablesBackfills(engine)
        self.changes = Changes(engine)
        self.days = DayQueries(engine)
        self.metrics = MetricQueries(engine)
        self._writer = writing(engine)
        self._policy = policy
        self._insert_requests = insert_requests(engine)

    @classmethod
    def open(
        cls,
        url: str,
        *,
        lease: dt.timedelta,
        max_attempts: int,
        connect_timeout: float = 0.0,
        observed: bool = False,
        may_migrate: bool = True,
    ) -> "JobStore":
        """Open the store; create or migrate it if needed.

        Args:
            url: URL of the database: ``sqlite:///path`` or ``postgresql://...``.
            lease: How long a parser may be silent.
            max_attempts: How often a job is handed out before it is failed.
            connect_timeout: Seconds that each transaction may wait for PostgreSQL to accept
                connections.
            observed: Whether to add observations of jobs at parsers to the outbox, which must then
                be emptied.
            may_migrate: Whether to create a missing or migrate an older store; else it is refused.

        Raises:
            StoreError: The store cannot be used.
        """
        engine = open_engine(url, connect_timeout=connect_timeout)
        try:
            prepare(writing(engine), may_migrate=may_migrate)
        except BaseException:
            engine.dispose()
            raise
        policy = LeasePolicy(lease=lease, max_attempts=max_attempts)
        return cls(engine, policy, observed=observed)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    # -- requests

    def enqueue(self, wanted: Sequence[JobRequest], *, now: dt.datetime) -> list[Job]:
        """Request jobs. A long list takes several transactions; repeating the call is safe.

        A request attaches to the open job of its key until the job's rows are in raw, and can only
        raise its priority. A requester of the newest job of the key attaches to it again even when
        it is complete. Else a new job is made.

        Returns:
            The jobs in the order of the requests.
        """
        done: list[Job] = []
        for some in without_repeats(wanted):
            if done:
                time.sleep(_PAUSE_SECONDS)
            jobs, changes = self._transaction(partial(self._enqueue, wanted=some, now=now))
            job_log.tell(changes)
            done += jobs
        return done

    def withdraw(self, run_id: str, *, by: str, now: dt.datetime) -> list[Job]:
        """Withdraw a run's requests, except those that another run has taken over.

        Args:
            run_id: The run that made the requests, or took them over from the run it retries.
            by: Who withdraws them and why; it begins with ``BY_PERSON`` if a person does.
            now: The time.

        Returns:
            The withdrawn jobs: those that were queued and have no other active request. A parser
            keeps the job that it holds.
        """
        r = schema.requests.c
        own = select(r.job).where(r.run_id == run_id, r.withdrawn.is_(None))
        queued = select_jobs().where(_c.state == JobState.QUEUED, _c.number.in_(own))
        with self._writer.begin() as connection:
            jobs = locked(connection, queued)
            withdraw_requests(connection, run_id, by, now)
            changes = withdraw_unwanted(connection, jobs, f"withdrawn by {by}", now)
            save_jobs(connection, changes)
        job_log.tell(changes)
        return [change.job for change in changes]

    def mark_reported(self, numbers: Collection[int], *, run_id: str, now: dt.datetime) -> None:
        """Mark these jobs, and the run's requests for them, as reported."""
        with self._writer.begin() as connection:
            requests.mark_reported(connection, numbers, run_id, now)

    def confirm_reports(self, reports: Collection[ParseReport], *, now: dt.datetime) -> None:
        """Mark jobs as reported to Dagster, with the requests that each report lists."""
        with self._writer.begin() as connection:
            requests.confirm_reports(connection, reports, now)

    # -- parsers

    def lease(self, count: int, *, parser: str = "", now: dt.datetime) -> list[Job]:
        """Hand out up to ``count`` queued jobs to a parser, the most urgent first."""
        outcome = self.apply([Next(parser)] * count, now=now)
        return [job for job in outcome if isinstance(job, Job)]

    def apply(self, calls: Sequence[Call], *, now: dt.datetime) -> list[Job | Refusal]:
        """Apply the calls of parsers in one transaction.

        Returns:
            For each call, the job after it, or a refusal, which changed nothing.
        """
        with self._writer.begin() as connection:
            answers, changes = self._reports(connection, calls, now)
            if changes:
                save_jobs(connection, changes)
            asking = [i for i, call in enumerate(calls) if isinstance(call, Next)]
            if asking:
                changes += self._hand_out(connection, calls, asking, answers, now)
            self._observe(connection, changes)
        job_log.tell(changes)
        job_log.tell_refusals(answers.values())
        return [answers[i] for i in range(len(calls))]

    def expire(self, *, now: dt.datetime) -> list[Job]:
        """End the attempts whose leases have expired: requeue, fail or withdraw their jobs.

        Returns:
            The changed jobs.
        """
        overdue = select_jobs().where(_c.state.in_(sorted(PARSING_STATES)), _c.lease_expires <= now)
        if not self._all(overdue.limit(1)):
            return []  # nearly always, so that the call rarely takes the write lock
        with self._writer.begin() as connection:
            changes = [
                parser_calls.expire_lease(job, policy=self._policy, now=now)
                for job in locked(connection, overdue)
            ]
            changes += self._unwanted_again(connection, changes, now)
            save_jobs(connection, changes)
            self._observe(connection, changes)
        job_log.tell(changes)
        return [change.job for change in merged(changes)]

    # -- tables

    def stage(
        self, key: JobKey, state: JobState, *, run_id: str, detail: str = "", now: dt.datetime
    ) -> Job | None:
        """Move the newest job of a key to a stage of its tables, or to complete.

        Returns:
            The job; ``None`` and no change if there is none, or the run does not work on its parse
            (see ``table_stages.enter_stage``).

        Raises:
            TransitionError: ``state`` is not a table stage, or cannot follow the job's state.
        """
        return self._tables(
            key,
            lambda job: table_stages.enter_stage(job, state, run_id=run_id, detail=detail, now=now),
        )

    def fail_stage(
        self,
        key: JobKey,
        error: str,
        *,
        run_id: str,
        number: int | None = None,
        now: dt.datetime,
    ) -> Job | None:
        """Fail the newest job of a key in its current stage.

        Returns:
            The job; ``None`` if this run has nothing to fail (see ``table_stages.fail_stage``).
        """
        return self._tables(
            key,
            lambda job: table_stages.fail_stage(job, error, run_id=run_id, number=number, now=now),
        )

    # -- helpers

    def _observe(self, connection: Connection, changes: Iterable[Change]) -> None:
        if self._observed:
            self.outbox.add(connection, observations(changes))

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction; retry if another process inserted a job of the same key.

        PostgreSQL's unique indexes detect this race; SQLite's write lock prevents it.
        """
        for _ in range(_TRIES - 1):
            try:
                with self._writer.begin() as connection:
                    return work(connection)
            except IntegrityError as error:
                log.info("once more, after a race: %s", error.orig)
        with self._writer.begin() as connection:
            return work(connection)

    def _enqueue(
        self, connection: Connection, wanted: list[JobRequest], now: dt.datetime
    ) -> tuple[list[Job], list[Change]]:
        keys = [str(request.key) for request in wanted]
        latest = {job.key: job for job in locked(connection, select_jobs().where(is_latest(keys)))}
        own = asked_before(connection, latest.values(), {request.requester for request in wanted})
        jobs: dict[JobKey, Job] = {}
        made, changes, raised = [], [], []
        for request in wanted:
            job = latest.get(request.key)
            if job and moves.attaches(job, own=(job.number, request.requester) in own):
                if request.priority < job.priority:
                    job = replace(job, priority=request.priority)
                    raised.append({"of": job.number, "priority": request.priority})
                jobs[request.key] = job
                continue
            if job and job.state in OPEN:
                changes.append(moves.withdraw(job, "its key was requested again", now=now))
            made.append(moves.new_job(request, job.generation + 1 if job else 1, now=now))
        save_jobs(connection, changes)
        if raised:
            connection.execute(_RAISE_PRIORITY, raised)
        new = insert_jobs(connection, made, now)
        jobs |= {change.job.key: change.job for change in new}
        connection.execute(self._insert_requests, request_rows(wanted, jobs, now))
        return [jobs[request.key] for request in wanted], changes + new

    def _reports(
        self, connection: Connection, calls: Sequence[Call], now: dt.datetime
    ) -> tuple[dict[int, Job | Refusal], list[Change]]:
        ids = {call.id for call in calls if not isinstance(call, Next)}
        current: dict[str, Job] = {}
        for chunk in chunks(sorted(ids)):
            for row in connection.execute(_BY_WIRE_ID, {"ids": chunk}):
                job = job_of(row)
                current[job.id] = job
        answers: dict[int, Job | Refusal] = {}
        changes: list[Change] = []
        for i, call in enumerate(calls):
            if isinstance(call, Next):
                continue
            named = current.get(call.id)
            outcome = parser_calls.apply_report(named, call, policy=self._policy, now=now)
            if isinstance(outcome, Change):
                # By the ID of the call: if it ended the attempt, the next call with it is refused.
                current[call.id] = answers[i] = outcome.job
                if outcome.job is not named:
                    changes.append(outcome)
            else:
                answers[i] = outcome
        return answers, changes + self._unwanted_again(connection, changes, now)

    def _hand_out(
        self,
        connection: Connection,
        calls: Sequence[Call],
        asking: list[int],
        answers: dict[int, Job | Refusal],
        now: dt.datetime,
    ) -> list[Change]:
        jobs = [job_of(row) for row in connection.execute(_NEXT, {"count": len(asking)})]
        changes = []
        for i, job in zip(asking, jobs, strict=False):
            call = calls[i]
            assert isinstance(call, Next)  # noqa: S101 - what `asking` holds; tells the type checker
            changes.append(parser_calls.hand_out(job, call, policy=self._policy, now=now))
            answers[i] = changes[-1].job
        for i in asking[len(jobs) :]:
            answers[i] = NoJob()
        save_jobs(connection, changes)
        return changes

    def _unwanted_again(
        self, connection: Connection, changes: Iterable[Change], now: dt.datetime
    ) -> list[Change]:
        """Return changes that withdraw requeued jobs without an active request."""
        queued = [change.job for change in changes if change.job.state is JobState.QUEUED]
        return withdraw_unwanted(connection, queued, "no request for it is left", now)

    def _tables(self, key: JobKey, step: Callable[[Job], Change | None]) -> Job | None:
        def work(connection: Connection) -> Change | None:
            found = locked(connection, select_jobs().where(is_latest([str(key)])))
            change = step(found[0]) if found else None
            if change is not None:
                save_jobs(connection, [change])
            return change

        change = self._transaction(work)
        if change is None:
            return None
        job_log.tell([change])
        return change.job
