"""The sensors over a store, ticked by hand, and what Dagster has in it."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import dagster as dg
from dagster import DagsterRunStatus
from dagster._core.definitions.selector import (
    PartitionRangeSelector,
    PartitionsByAssetSelector,
    PartitionsSelector,
)
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.utils import make_new_backfill_id
from job_requests import request_for
from simulated import Parser

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import Job, JobState
from gardener_api.store.store import JobStore
from gardener_dagster.assets.keys import RANGE_END_TAG, RANGE_START_TAG
from gardener_dagster.automation.sensors import build_sensors
from gardener_dagster.planning.due_tables import job_key
from gardener_dagster.planning.ranges import dates_between

DAY = dt.date(2024, 3, 1)
BEFORE = DAY - dt.timedelta(days=1)
NOW = dt.datetime(2024, 3, 2, 12, tzinfo=dt.UTC)
NDT7, ANNOTATION2 = "ndt/ndt7", "ndt/annotation2"
JOINED = dg.AssetKey(["ndt", "ndt7"])


class Gardener:
    """The sensors over a store, ticked by hand."""

    def __init__(
        self,
        config: GardenerConfig,
        store: JobStore,
        defs: dg.Definitions,
        instance: dg.DagsterInstance,
    ) -> None:
        self.config, self.store, self.instance = config, store, instance
        self._defs = defs
        self._sensors = {sensor.name: sensor for sensor in build_sensors(config)}
        self._cursors: dict[str, str | None] = {}

    def tick(self, name: str, *, keep: bool = True) -> dg.SensorResult:
        """One tick; ``keep=False``: it died before its cursor was kept."""
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self._cursors.get(name),
            repository_def=self._defs.get_repository_def(),
            resources={"job_store": self.store},
        )
        result = self._sensors[name](context)
        assert isinstance(result, dg.SensorResult)
        if keep:
            self._cursors[name] = result.cursor
        return result

    def runs(self, name: str) -> list[tuple[str, list[str]]]:
        """Dates and assets of each run that a tick asks for."""
        return [
            (dates_of(r), [k.to_user_string() for k in r.asset_selection or ()])
            for r in self.tick(name).run_requests or ()
        ]

    def joins(self, date: dt.date = DAY) -> list[str]:
        """Run keys of the joins of a date that a tick asks for."""
        runs = self.tick("joins").run_requests or ()
        assert all(run.asset_selection == [JOINED] for run in runs)
        return [str(run.run_key) for run in runs if date in all_dates(run)]

    def backfill(
        self, status: BulkActionStatus, *keys: str, dates: Sequence[dt.date] = (DAY,)
    ) -> str:
        """A backfill of some assets and dates, in that state."""
        span = PartitionRangeSelector(start=dates[0].isoformat(), end=dates[-1].isoformat())
        backfill = PartitionBackfill.from_partitions_by_assets(
            backfill_id=make_new_backfill_id(),
            asset_graph=self._defs.get_repository_def().asset_graph,
            backfill_timestamp=NOW.timestamp(),
            tags={},
            dynamic_partitions_store=self.instance,
            partitions_by_assets=[
                PartitionsByAssetSelector(
                    asset_key=dg.AssetKey.from_user_string(key),
                    partitions=PartitionsSelector(ranges=[span]),
                )
                for key in keys
            ],
            title=None,
            description=None,
            run_config=None,
        )
        self.instance.add_backfill(backfill.with_status(status))
        return str(backfill.backfill_id)

    def end(self, backfill_id: str, status: BulkActionStatus) -> None:
        backfill = self.instance.get_backfill(backfill_id)
        assert backfill is not None
        self.instance.update_backfill(backfill.with_status(status))

    def latest(self, job: Job) -> Job:
        found = self.store.latest(job.key)
        assert found is not None
        return found

    def ask(self, name: str, date: dt.date = DAY, requester: str = "r", **changed: Any) -> Job:
        source = self.config.source(name)
        wanted: dict[str, Any] = {"run_id": requester, "join": "", "archives": 1} | changed
        request = request_for(job_key(source, date), requester=requester, **wanted)
        [job] = self.store.enqueue([request], now=NOW)
        return job

    def parse(self, name: str, date: dt.date = DAY, **changed: Any) -> Job:
        self.ask(name, date, **changed)
        [job] = self.store.lease(1, now=NOW)
        Parser(self.store).finish(job)
        done = self.store.latest(job.key)
        assert done is not None
        return done

    def make(self, name: str, date: dt.date = DAY) -> None:
        """Raw of a source: the job complete (or waiting for its join), the version up by one."""
        source = self.config.source(name)
        self.store.tables.record_partition(source.raw_table, date, rows=1, run_id="t", now=NOW)
        job = self.store.latest(job_key(source, date))
        if job is not None:
            last = JobState.JOINING if source.joined_table else JobState.COMPLETE
            for state in (JobState.LOADING, last):
                self.store.stage(job.key, state, run_id="t", now=NOW)

    def run(self, status: DagsterRunStatus, tags: dict[str, str] | None = None) -> str:
        """A run of that status in Dagster."""
        run = self.instance.create_run_for_job(
            self._defs.resolve_implicit_global_asset_job_def(), tags=tags or {}
        )
        if status is not DagsterRunStatus.NOT_STARTED:
            self.instance.run_storage.handle_run_event(run.run_id, run_event(status))
        return run.run_id


def dates_of(request: dg.RunRequest) -> str:
    """``first`` or ``first..last``."""
    if request.partition_key:
        return request.partition_key
    return f"{request.tags[RANGE_START_TAG]}..{request.tags[RANGE_END_TAG]}"


def all_dates(request: dg.RunRequest) -> list[dt.date]:
    first, _, last = dates_of(request).partition("..")
    return dates_between(dt.date.fromisoformat(first), dt.date.fromisoformat(last or first))


def run_event(status: DagsterRunStatus) -> dg.DagsterEvent:
    kinds = {
        DagsterRunStatus.FAILURE: dg.DagsterEventType.RUN_FAILURE,
        DagsterRunStatus.SUCCESS: dg.DagsterEventType.RUN_SUCCESS,
        DagsterRunStatus.CANCELED: dg.DagsterEventType.RUN_CANCELED,
    }
    return dg.DagsterEvent(
        event_type_value=kinds[status].value, job_name="__ASSET_JOB", message="from a test"
    )
