"""The sensors: thin, they fetch facts, ask ``planning`` what is due, and start it.

``parsed_jobs`` starts the tables of parsed jobs, ``joins`` starts joins whose inputs have changed,
``decisions`` carries out decisions about held partitions. ``planning`` decides which runs are
started.
"""

import datetime as dt
from collections.abc import Collection, Sequence

import dagster as dg
from dagster import AssetSelection, RunsFilter

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import Job, Priority
from gardener_api.store.store import JobStore
from gardener_dagster.assets.keys import (
    DECISION_TAG,
    JOB_TAG,
    joined_key,
    raw_key,
    table_keys,
    tmp_key,
)
from gardener_dagster.assets.parsed import parsed_materialization
from gardener_dagster.assets.requesters import withdraw_cancelled
from gardener_dagster.automation.run_requests import NOT_ENDED, minimum_interval, tables_request
from gardener_dagster.automation.sensor_inputs.decisions import decision_runs
from gardener_dagster.automation.sensor_inputs.joins import DueJoins
from gardener_dagster.automation.sensor_inputs.parsed_jobs import ParsedTables
from gardener_dagster.automation.sensor_inputs.reported_jobs import (
    confirm_reported,
    reported_cursor,
)
from gardener_dagster.automation.sensor_inputs.tables_backfills import note_tables_backfills
from gardener_dagster.planning import due_decisions, due_joins, due_tables

JOBS_NAMED = 3


def build_sensors(config: GardenerConfig) -> list[dg.SensorDefinition]:
    """Build the sensors; they tick once per ``monitor.polling_interval``."""
    interval = minimum_interval(config.monitor.polling_interval)
    return [_parsed_jobs(config, interval), _joins(config, interval), _decisions(config, interval)]


# -- tables of what was parsed


def _parsed_jobs(config: GardenerConfig, interval: int) -> dg.SensorDefinition:
    @dg.sensor(
        name="parsed_jobs",
        target=AssetSelection.assets(*(k for s in config.sources for k in table_keys(s))),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts the tables of the dates that were parsed, and the joins where it can.",
    )
    def parsed_jobs(
        context: dg.SensorEvaluationContext, job_store: dg.ResourceParam[JobStore]
    ) -> dg.SensorResult:
        now = dt.datetime.now(dt.UTC)
        confirm_reported(job_store, context.cursor, now=now)
        withdraw_cancelled(context.instance, job_store, now=now)
        if context.repository_def is not None:
            note_tables_backfills(config, context.instance, context.repository_def, job_store)
        tables = ParsedTables(config, context.instance, job_store, now=now)
        tables.find_lost()
        tables.fail_cancelled()
        runs = tables.to_start()
        outside = job_store.parsed_jobs(before=config.start_date, limit=JOBS_NAMED)
        problem = _outside_partitions([item.job for item in outside], config)
        if runs and problem:
            context.log.warning(problem)
        live_runs = unended_of(context.instance, job_store.runs_of_unreported_parses())
        report = [
            item
            for item in job_store.unreported_parses(live_runs=live_runs)
            if due_tables.is_partition(config, item.job.key.date, now=now)
        ]
        return dg.SensorResult(
            run_requests=[_tables_request(run) for run in runs],
            skip_reason=problem if problem and not runs else None,
            asset_events=[parsed_materialization(item.job) for item in report],
            cursor=reported_cursor(report),
        )

    return parsed_jobs


def _tables_request(run: due_tables.TablesRun) -> dg.RunRequest:
    keys = [tmp_key(run.source), raw_key(run.source)]
    joined = joined_key(run.source) if run.joined else None
    return tables_request(
        run.source,
        [*keys, joined] if joined else keys,
        run.first,
        run.last,
        run_key=run.run_key,
        priority=run.priority,
        backfill_id=run.backfill_id,
        tags={JOB_TAG: run.title},
    )


def _outside_partitions(jobs: Sequence[Job], config: GardenerConfig) -> str:
    """Describe the parsed jobs that get no tables because their dates have no partition."""
    if not jobs:
        return ""
    names = ", ".join(job.id for job in jobs)
    return (
        f"no tables are made of dates before start_date, {config.start_date}: {names}"
        f"{' and maybe others' if len(jobs) == JOBS_NAMED else ''}. What to do: move start_date in"
        " the configuration back, or leave them"
    )


def unended_of(instance: dg.DagsterInstance, run_ids: Collection[str]) -> set[str]:
    """Return those of the runs that have not ended."""
    if not run_ids:
        return set()  # an empty filter would match all runs
    runs = instance.get_runs(filters=RunsFilter(run_ids=sorted(run_ids), statuses=NOT_ENDED))
    return {run.run_id for run in runs}


# -- joins


def _joins(config: GardenerConfig, interval: int) -> dg.SensorDefinition:
    joining = [s for s in config.sources if s.joined_table]

    @dg.sensor(
        name="joins",
        target=AssetSelection.assets(*(k for s in joining if (k := joined_key(s)))),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Joins each date whose raw rows or annotations were made after its last join.",
    )
    def joins(
        context: dg.SensorEvaluationContext, job_store: dg.ResourceParam[JobStore]
    ) -> dg.SensorResult:
        due = DueJoins(config, context, job_store, now=dt.datetime.now(dt.UTC))
        runs = [run for source in joining for run in due.to_start(source)]
        start = due_tables.within_bounds(
            sorted(runs, key=lambda run: run.priority), unended=due.unended
        )
        return dg.SensorResult(run_requests=[_join_request(run) for run in start])

    return joins


def _join_request(run: due_joins.JoinRun) -> dg.RunRequest:
    key = joined_key(run.source)
    return tables_request(
        run.source,
        [key] if key else [],
        run.first,
        run.last,
        run_key=run.run_key,
        priority=run.priority,
        backfill_id=run.backfill_id,
        tags={},
    )


# -- decisions about held partitions


def _decisions(config: GardenerConfig, interval: int) -> dg.SensorDefinition:
    @dg.sensor(
        name="decisions",
        target=AssetSelection.assets(*(k for s in config.sources for k in table_keys(s))),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Publishes held partitions that a person accepted, drops those rejected.",
    )
    def decisions(
        context: dg.SensorEvaluationContext, job_store: dg.ResourceParam[JobStore]
    ) -> dg.SensorResult:
        decided = job_store.held.decided()
        runs = decision_runs(context.instance, decided, now=dt.datetime.now(dt.UTC))
        due = due_decisions.decisions_due(config, decided, runs)
        return dg.SensorResult(
            run_requests=[_decision_request(run) for run in due[: due_tables.RUNS_PER_TICK]]
        )

    return decisions


def _decision_request(run: due_decisions.DecisionRun) -> dg.RunRequest:
    date = run.held.key.date
    return tables_request(
        run.source,
        [dg.AssetKey(run.held.table.split("."))],
        date,
        date,
        run_key=run.run_key,
        priority=Priority.DAILY,  # a person waits for it
        backfill_id=None,
        tags={DECISION_TAG: str(run.held.number)},
    )
