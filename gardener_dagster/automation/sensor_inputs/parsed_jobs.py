"""What the sensor ``parsed_jobs`` reads in one tick, and what it makes of lost and cancelled jobs.

``planning.due_tables`` decides which runs are started.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain

import dagster as dg

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import Job, JobKey, JobState, Parsed
from gardener_api.store.store import JobStore
from gardener_dagster.assets.keys import raw_key
from gardener_dagster.automation.sensor_inputs.dagster_runs import (
    RunFates,
    covered,
    created,
    started_by,
    succeeded,
    unended_runs,
)
from gardener_dagster.dagster_internals import BackfillState
from gardener_dagster.planning import due_tables, lost_tables

JOBS_READ = 2_000
"""Parsed jobs that a tick reads at most, the most urgent first: more than unfinished runs cover."""


class ParsedTables:
    """The parsed jobs whose raw partition is not made, as read in one tick."""

    def __init__(
        self,
        config: GardenerConfig,
        instance: dg.DagsterInstance,
        store: JobStore,
        *,
        now: dt.datetime,
    ) -> None:
        self._config, self._instance, self._store, self._now = config, instance, store, now
        self._fates = RunFates(instance, now=now)
        self._working = store.in_tables()
        self._runs = self._fates.by_id(job.run_id for job in self._working if job.run_id)
        self._parsed = store.parsed_jobs(first=config.start_date, limit=JOBS_READ)
        self._lost: dict[int, lost_tables.LostRun] = {}

    def find_lost(self) -> None:
        """Find the jobs whose run ended without recording it in the store, as when it was killed.

        They are due again, or failed if too many of their runs were lost. Dagster's own retry is
        not enough: Dagster abandons it if no code server answers at that moment.
        """
        badly = [r for r in self._runs.values() if self._fates.is_lost(r)]
        by_id = {r.dagster_run.run_id: r.dagster_run.status.value for r in badly}
        jobs = [*self._working, *(item.job for item in self._parsed)]
        lost = {
            found.job.number: found
            for found in lost_tables.lost_runs(jobs, by_id=by_id, by_date=self._ended_by_date())
        }
        self._lost = {number: found for number, found in lost.items() if found.is_to_repeat}
        failed = {number: found for number, found in lost.items() if not found.is_to_repeat}
        for found in failed.values():
            self._store.fail_stage(
                found.job.key,
                found.reason,
                run_id=found.run_id,
                number=found.job.number,
                now=self._now,
            )
        self._leave_out(failed)

    def fail_cancelled(self) -> None:
        """Fail the jobs that only cancelled whole-chain backfills requested."""
        waiting = [job for job in self._working if job.state is JobState.JOINING]
        items = [*self._parsed, *self._loaded_only(), *self._with_requests(waiting)]
        gone = {}
        for item in items:
            requests = [*item.requests, *item.withdrawn]
            cancelled = self._in_state(requests_of=[item], state=BackfillState.CANCELLED)
            if due_tables.is_cancelled(requests, cancelled):
                gone[item.job.number] = item.job
        for job in gone.values():
            self._store.fail_stage(
                job.key,
                "the backfill that asked for it was cancelled. What to do: nothing, or materialize"
                " the date's tables in Dagster",
                run_id=job.run_id,
                number=job.number,
                now=self._now,
            )
        self._leave_out(gone)

    def to_start(self) -> list[due_tables.TablesRun]:
        """Return the runs to start, in the order of ``due_tables.tables_due``."""
        begun = [job for job in self._working if job.number in self._lost]
        items = [*self._parsed, *self._loaded_only(), *self._with_requests(begun)]
        if not items:
            return []
        unended = unended_runs(self._instance)
        waiting = [r.dagster_run for r in self._ended if self._fates.will_be_retried(r)]
        due = due_tables.tables_due(
            self._config,
            items,
            taken=frozenset(covered([*unended, *waiting], self._raw_names)),
            requested=self._in_state(requests_of=items, state=BackfillState.REQUESTED),
            lost={number: found.run_id for number, found in self._lost.items()},
            now=self._now,
        )
        open_jobs = self._store.open_keys(due_tables.read_by_runs(self._config, due))
        start = due_tables.tables_to_start(
            self._config,
            due,
            open_jobs=open_jobs,
            unended=started_by(unended, "parsed_jobs", self._raw_names),
            now=self._now,
        )
        return [self._with_joins(run, open_jobs) for run in start]

    def _with_joins(
        self, run: due_tables.TablesRun, open_jobs: Mapping[JobKey, Job]
    ) -> due_tables.TablesRun:
        annotations = run.annotations(self._config)
        if annotations is None:
            return run
        made = self._store.days.rows(annotations.raw_table, run.first, run.last)
        return due_tables.with_joins(
            self._config, run, made=made.keys(), open_jobs=open_jobs, now=self._now
        )

    @cached_property
    def _raw_names(self) -> Mapping[dg.AssetKey, str]:
        return {raw_key(source): source.name for source in self._config.sources}

    @cached_property
    def _ended(self) -> Sequence[dg.RunRecord]:
        parsed = [item.job.parsed for item in self._parsed if item.job.parsed]
        return self._fates.ended_badly("parsed_jobs", since=min(parsed)) if parsed else ()

    def _ended_by_date(self) -> dict[tuple[str, dt.date], list[lost_tables.EndedRun]]:
        found: dict[tuple[str, dt.date], list[lost_tables.EndedRun]] = {}
        for record in self._ended:
            if self._fates.is_lost(record):
                ended = lost_tables.EndedRun(
                    run_id=record.dagster_run.run_id,
                    status=record.dagster_run.status.value,
                    created=created(record),
                )
                for name, date in covered([record.dagster_run], self._raw_names):
                    found.setdefault((name, date), []).append(ended)
        return found

    def _loaded_only(self) -> list[Parsed]:
        """Return the jobs of whole-chain backfills whose successful run made tmp only.

        Dagster's daemon makes tmp and raw of a backfill in one run only if both lack the same
        dates. The sensor starts the remaining tables without waiting for that.
        """
        done = succeeded(self._runs)
        jobs = [j for j in self._working if j.state is JobState.LOADING and j.run_id in done]
        items = self._with_requests(jobs)
        requested = self._in_state(requests_of=items, state=BackfillState.REQUESTED)
        return [i for i in items if due_tables.backfill_of(i.requests, requested)]

    def _with_requests(self, jobs: Sequence[Job]) -> list[Parsed]:
        requests = self._store.requests_of([job.number for job in jobs]) if jobs else {}
        return [
            Parsed(
                job=job,
                requests=tuple(r for r in requests.get(job.number, ()) if r.withdrawn is None),
                withdrawn=tuple(r for r in requests.get(job.number, ()) if r.withdrawn),
            )
            for job in jobs
        ]

    def _in_state(self, *, requests_of: Iterable[Parsed], state: BackfillState) -> frozenset[str]:
        """Return the whole-chain backfills in a state that requested any of these jobs."""
        backfills = {
            request.backfill_id
            for item in requests_of
            for request in chain(item.requests, item.withdrawn)
            if request.covers_tables and request.backfill_id
        }
        return frozenset(b for b in backfills if self._fates.backfill(b) is state)

    def _leave_out(self, numbers: Collection[int]) -> None:
        self._parsed = [item for item in self._parsed if item.job.number not in numbers]
        self._working = [job for job in self._working if job.number not in numbers]
        self._lost = {n: found for n, found in self._lost.items() if n not in numbers}
