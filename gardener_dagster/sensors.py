"""The sensors: thin, they fetch facts, ask ``planning`` what is due, and start it.

``parsed_jobs`` follows the job store: tables for what was parsed. ``joins`` follows the versions of
what a join reads. Whoever wants to know why a run was started, or was not, reads ``planning``.
"""

import datetime as dt
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property

import dagster as dg
from dagster import AssetSelection, RunsFilter
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.execution.backfill import (
    BulkActionsFilter,
    BulkActionStatus,
    PartitionBackfill,
)

from gardener_api.config import GardenerConfig, Source
from gardener_api.jobs import Job, JobKey, Parsed
from gardener_api.store import JobStore
from gardener_dagster import planning
from gardener_dagster.daily import newest_due
from gardener_dagster.graph import (
    JOB_TAG,
    QUEUE_ORDER,
    QUEUE_TAG,
    joined_key,
    raw_key,
    table_keys,
    tmp_key,
)
from gardener_dagster.parse import parsed_materialization
from gardener_dagster.partitions import date_of
from gardener_dagster.runs import ENDED_BADLY, NOT_ENDED
from gardener_dagster.ticks import seconds_between

UNFINISHED = [
    BulkActionStatus.REQUESTED,
    BulkActionStatus.CANCELING,
    BulkActionStatus.FAILING,
]


def build_sensors(config: GardenerConfig) -> list[dg.SensorDefinition]:
    """Both sensors; they tick as often as ``monitor.polling_interval`` says."""
    interval = seconds_between(config.monitor.polling_interval)
    return [_parsed_jobs(config, interval), _joins(config, interval)]


def _parsed_jobs(config: GardenerConfig, interval: int) -> dg.SensorDefinition:
    @dg.sensor(
        name="parsed_jobs",
        target=AssetSelection.assets(*(k for s in config.sources for k in table_keys(s))),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts the tables of each date that was parsed, and the join where it can be.",
    )
    def parsed_jobs(
        context: dg.SensorEvaluationContext, job_store: dg.ResourceParam[JobStore]
    ) -> dg.SensorResult:
        now = dt.datetime.now(dt.UTC)
        confirm_announced(job_store, context.cursor, now=now)
        unfinished = {b.backfill_id for b in unfinished_backfills(context.instance)}
        parsed = job_store.parsed_jobs(not_of=unfinished)
        fail_lost_runs(context.instance, job_store, parsed, now=now)
        due = planning.tables_due(
            config,
            parsed,
            joins_ready=_joins_ready(config, job_store, [item.job.key for item in parsed]),
        )
        unannounced = job_store.unannounced()
        announce = planning.announcements_due(
            unannounced,
            live_runs=live_runs(context.instance, unannounced),
        )
        return dg.SensorResult(
            run_requests=[_tables_request(run) for run in due],
            asset_events=[parsed_materialization(job) for job in announce],
            cursor=json.dumps([job.number for job in announce]),
        )

    return parsed_jobs


def _tables_request(run: planning.TablesRun) -> dg.RunRequest:
    keys = [tmp_key(run.source), raw_key(run.source)]
    joined = joined_key(run.source) if run.joined else None
    return dg.RunRequest(
        run_key=run.run_key,
        asset_selection=[*keys, joined] if joined else keys,
        partition_key=run.job.key.date.isoformat(),
        tags={JOB_TAG: run.job.id, QUEUE_TAG: QUEUE_ORDER[run.job.priority]},
    )


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
        newest, covered = newest_due(dt.datetime.now(dt.UTC)), Covered(context)
        runs = [
            run
            for source in joining
            for run in joins_of(config, source, job_store, covered, newest=newest)
        ]
        return dg.SensorResult(run_requests=[_join_request(run) for run in runs])

    return joins


def joins_of(
    config: GardenerConfig,
    source: Source,
    store: JobStore,
    covered: "Covered",
    *,
    newest: dt.date,
) -> list[planning.JoinRun]:
    """The joins of one source to start now; later dates than ``newest`` have no rows yet."""
    annotations = config.annotations_of(source)
    if annotations is None or source.joined_table is None:
        return []
    due = store.tables.joins_due(
        source.raw_table, annotations.raw_table, source.joined_table, newest=newest
    )
    if not due:
        return []
    theirs = covered.dates(joined_key(source))
    due = [item for item in due if item.date not in theirs]  # of a long backfill, most
    keys = [planning.job_key(s, item.date) for item in due for s in (source, annotations)]
    return planning.joins_to_start(
        config,
        source,
        due,
        open_jobs=store.open_keys(keys),
    )


def _join_request(run: planning.JoinRun) -> dg.RunRequest:
    key = joined_key(run.source)
    return dg.RunRequest(
        run_key=run.run_key,
        asset_selection=[key] if key else None,
        partition_key=run.due.date.isoformat(),
        tags={QUEUE_TAG: QUEUE_ORDER[run.priority]},
    )


def _joins_ready(
    config: GardenerConfig, store: JobStore, keys: Sequence[JobKey]
) -> frozenset[JobKey]:
    annotations = planning.annotation_keys(config, keys)
    made = {
        key
        for key in set(annotations.values())
        if store.tables.partition(config.source(key.source).raw_table, key.date)
    }
    return planning.joins_ready(
        annotations, made=made, open_jobs=store.open_keys(list(annotations.values()))
    )


def confirm_announced(store: JobStore, cursor: str | None, *, now: dt.datetime) -> None:
    """Marks in the store what the tick before announced.

    The cursor and the announcements of a tick are kept together or not at all; so a tick that died
    announces again, and none is lost.
    """
    numbers = json.loads(cursor) if cursor else []
    if numbers:
        store.mark_reported(numbers, requester=None, now=now)


def fail_lost_runs(
    instance: dg.DagsterInstance, store: JobStore, parsed: Iterable[Parsed], *, now: dt.datetime
) -> None:
    """Writes into the store which table runs ended without having said so themselves.

    A run that was killed, or never came to its first step, cannot write.
    """
    jobs = [(job, job.run_id) for job in store.in_tables() if job.run_id]
    jobs += list(_never_begun(instance, [item.job for item in parsed]))
    if not jobs:
        return
    records = instance.get_runs(
        filters=RunsFilter(run_ids=[run_id for _, run_id in jobs], statuses=ENDED_BADLY)
    )
    ended = {run.run_id: run.status.value for run in records}
    for lost in planning.lost_runs(jobs, ended=ended):
        store.fail_stage(
            lost.job.key, lost.reason, run_id=lost.run_id, number=lost.job.number, now=now
        )


def _never_begun(instance: dg.DagsterInstance, jobs: Sequence[Job]) -> Iterator[tuple[Job, str]]:
    if not jobs:
        return
    by_id = {job.id: job for job in jobs}
    runs = instance.get_runs(filters=RunsFilter(tags={JOB_TAG: list(by_id)}, statuses=ENDED_BADLY))
    for run in runs:
        yield by_id[run.tags[JOB_TAG]], run.run_id


def live_runs(instance: dg.DagsterInstance, unannounced: Sequence[Parsed]) -> set[str]:
    """Which of the runs that wait for these jobs are not over."""
    run_ids = {request.run_id for item in unannounced for request in item.requests}
    if not run_ids:
        return set()
    runs = instance.get_runs(filters=RunsFilter(run_ids=list(run_ids), statuses=NOT_ENDED))
    return {run.run_id for run in runs}


def unfinished_backfills(instance: dg.DagsterInstance) -> Sequence[PartitionBackfill]:
    """Backfills that may still start runs."""
    return instance.get_backfills(filters=BulkActionsFilter(statuses=UNFINISHED))


class Covered:
    """What unfinished backfills are going to make, as it is in one tick.

    It is read when somebody asks, and once: a long backfill's targets take a while to read.
    """

    def __init__(self, context: dg.SensorEvaluationContext) -> None:
        self._context = context

    def dates(self, key: dg.AssetKey | None) -> Collection[dt.date]:
        """Dates of an asset that an unfinished backfill is going to make."""
        if key is None:
            return frozenset()
        return frozenset(
            date_of(date)
            for target in self._targets
            if key in target.asset_keys
            for date in target.get_partitions_subset(key).get_partition_keys()
        )

    @cached_property
    def _targets(self) -> Sequence[AssetGraphSubset]:
        if self._context.repository_def is None:
            return ()
        graph = self._context.repository_def.asset_graph
        return [
            backfill.get_asset_backfill_data(graph).target_subset
            for backfill in unfinished_backfills(self._context.instance)
            if backfill.is_asset_backfill
        ]
