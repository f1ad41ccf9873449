"""What the sensor ``joins`` reads in one tick. Which runs follow from it is ``due_joins``'s."""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import dagster as dg

from gardener_api.config import GardenerConfig, Source
from gardener_api.jobs.job import Job, JobKey, JobState, Request
from gardener_api.store.store import JobStore
from gardener_api.store.tables.table_versions import DueJoin
from gardener_dagster.assets.keys import joined_key
from gardener_dagster.assets.partitions import date_of
from gardener_dagster.automation.sensor_inputs.dagster_runs import (
    RunFates,
    covered,
    created,
    started_by,
    unended_runs,
)
from gardener_dagster.dagster_internals import (
    BackfillState,
    RequestedBackfill,
    requested_backfills,
)
from gardener_dagster.planning import due_joins, due_tables, lost_tables
from gardener_dagster.planning.daily import newest_due

LOOK_BACK = dt.timedelta(days=1)
"""Maximum age of the ended join runs that a tick reads: a lost run is found within seconds."""
JOINS_READ = 1_000
"""Maximum number of due joins per source and tick, the newest dates: more than it can start."""


class DueJoins:
    """The due joins, as read in one tick."""

    def __init__(
        self,
        config: GardenerConfig,
        context: dg.SensorEvaluationContext,
        store: JobStore,
        *,
        now: dt.datetime,
    ) -> None:
        self._config, self._context, self._store, self._now = config, context, store, now
        self._fates = RunFates(context.instance, now=now)

    @property
    def unended(self) -> Mapping[str, int]:
        """Number of unfinished runs that the sensor started, by source."""
        names = {key: s.name for s in self._config.sources if (key := joined_key(s))}
        return started_by(self._unended, "joins", names)

    def to_start(self, source: Source) -> list[due_joins.JoinRun]:
        """Return the joins of one source to start now."""
        annotations, key = self._config.annotations_of(source), joined_key(source)
        if annotations is None or key is None or source.joined_table is None:
            return []
        # Dates after the newest due date have no rows yet.
        newest = newest_due(self._now)
        due = self._store.tables.joins_due(
            source.raw_table, annotations.raw_table, source.joined_table, newest=newest
        )
        if not due:
            return []  # the usual case
        waiting = [r.dagster_run for r in self._ended if self._fates.will_be_retried(r)]
        taken = {date for _, date in covered([*self._unended, *waiting], {key: ""})}
        due = [item for item in due if item.date not in taken][-JOINS_READ:]
        due = self._without_lost(source, source.joined_table, key, due)
        latest = self._store.days.latest(due_joins.read_by_joins(source, annotations, due))
        dates = [item.date for item in due]
        asked = _Asked(source, annotations, latest, self._store, dates)
        targets = {b.id: {date_of(p) for p in b.partitions(key)} for b in self._backfills}
        backfills = self._tags(asked, targets)
        left_to_backfills = set().union(*targets.values()) - backfills.keys()
        return due_joins.joins_to_start(
            self._config,
            source,
            due,
            latest=latest,
            left_out=left_to_backfills | self._cancelled(asked),
            backfills=backfills,
            now=self._now,
        )

    def _without_lost(
        self, source: Source, table: str, key: dg.AssetKey, due: Sequence[DueJoin]
    ) -> list[DueJoin]:
        """Give up the joins whose run was lost before it attempted them; return the others.

        Dagster starts no second run with the same run key.
        """
        lost = {
            date: record
            for record in self._ended
            if self._fates.is_lost(record)
            for _, date in covered([record.dagster_run], {key: ""})
        }
        left = []
        for item in due:
            record = lost.get(item.date)
            if record is None or item.since is None or created(record) < item.since:
                left.append(item)
                continue
            run = record.dagster_run
            self._store.tables.begin_join(
                table, item.date, item.inputs, run_id=run.run_id, now=self._now
            )
            job = self._store.latest(due_tables.job_key(source, item.date))
            if job is not None and job.state is JobState.JOINING:
                found = lost_tables.LostRun(job=job, run_id=run.run_id, status=run.status.value)
                self._store.fail_stage(job.key, found.reason, run_id=job.run_id, now=self._now)
        return left

    def _tags(
        self, asked: "_Asked", targets: Mapping[str, Iterable[dt.date]]
    ) -> dict[dt.date, str]:
        """Return, by date, the backfill that requested both its parse and its joined table."""
        found = {}
        for date, requests in asked.of_rows_and_annotations():
            requested = self._in_state(requests, BackfillState.REQUESTED)
            theirs = {b for b in requested if date in targets.get(b, ())}
            if backfill := due_tables.backfill_of(requests, theirs):
                found[date] = backfill
        return found

    def _cancelled(self, asked: "_Asked") -> set[dt.date]:
        """Return the dates whose newest job only cancelled backfills requested."""
        return {
            date
            for date, requests in asked.of_newest_job()
            if due_tables.is_cancelled(requests, self._in_state(requests, BackfillState.CANCELLED))
        }

    def _in_state(self, requests: Iterable[Request], state: BackfillState) -> set[str]:
        ids = {r.backfill_id for r in requests if r.covers_tables and r.backfill_id}
        return {backfill for backfill in ids if self._fates.backfill(backfill) is state}

    @cached_property
    def _unended(self) -> Sequence[dg.DagsterRun]:
        return unended_runs(self._context.instance)

    @cached_property
    def _ended(self) -> Sequence[dg.RunRecord]:
        return self._fates.ended_badly("joins", since=self._now - LOOK_BACK)

    @cached_property
    def _backfills(self) -> Sequence[RequestedBackfill]:
        if self._context.repository_def is None:
            return ()
        return requested_backfills(self._context.instance, self._context.repository_def)


class _Asked:
    """The requests for the jobs whose rows and annotations the joins read."""

    def __init__(
        self,
        source: Source,
        annotations: Source,
        latest: Mapping[JobKey, Job],
        store: JobStore,
        dates: Sequence[dt.date],
    ) -> None:
        self._jobs: dict[dt.date, list[Job]] = {
            date: [
                job
                for each in (source, annotations)
                if (job := latest.get(due_tables.job_key(each, date)))
            ]
            for date in dates
        }
        numbers = [job.number for jobs in self._jobs.values() for job in jobs]
        self._requests = store.requests_of(numbers)

    def of_rows_and_annotations(self) -> Iterable[tuple[dt.date, list[Request]]]:
        """Yield each date with the requests for its rows' job, then for its annotations' job."""
        for date, jobs in self._jobs.items():
            yield date, [r for job in jobs for r in self._requests.get(job.number, ())]

    def of_newest_job(self) -> Iterable[tuple[dt.date, list[Request]]]:
        """Yield each date with the requests for the newer of its two jobs."""
        for date, jobs in self._jobs.items():
            if jobs:
                newest = max(jobs, key=lambda job: job.number)
                yield date, self._requests.get(newest.number, [])
