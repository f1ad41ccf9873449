import datetime as dt
import json
from typing import Any

import dagster as dg
import pytest
from asks import ask_for
from dagster import DagsterRunStatus
from simulated import Parser

from gardener_api.config import GardenerConfig
from gardener_api.jobs import Job, JobState, Priority
from gardener_api.store import JobStore
from gardener_dagster.daily import newest_due
from gardener_dagster.graph import JOB_TAG, QUEUE_TAG
from gardener_dagster.planning import job_key
from gardener_dagster.sensors import build_sensors

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

    def runs(self, name: str) -> list[tuple[str | None, list[str]]]:
        """Partition and assets of each run that a tick asks for."""
        return [
            (r.partition_key, [k.to_user_string() for k in r.asset_selection or ()])
            for r in self.tick(name).run_requests or ()
        ]

    def joins(self, date: dt.date = DAY) -> list[str]:
        """Run keys of the joins of a date that a tick asks for."""
        runs = self.tick("joins").run_requests or ()
        assert all(run.asset_selection == [JOINED] for run in runs)
        return [str(run.run_key) for run in runs if run.partition_key == date.isoformat()]

    def ask(self, name: str, date: dt.date = DAY, requester: str = "r", **changed: Any) -> Job:
        source = self.config.source(name)
        wanted: dict[str, Any] = {"run_id": requester, "join": "", "archives": 1} | changed
        wish = ask_for(job_key(source, date), requester=requester, **wanted)
        [job] = self.store.enqueue([wish], now=NOW)
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
            self.instance.run_storage.handle_run_event(run.run_id, _event(status))
        return run.run_id


def _event(status: DagsterRunStatus) -> dg.DagsterEvent:
    kinds = {
        DagsterRunStatus.FAILURE: dg.DagsterEventType.RUN_FAILURE,
        DagsterRunStatus.SUCCESS: dg.DagsterEventType.RUN_SUCCESS,
        DagsterRunStatus.CANCELED: dg.DagsterEventType.RUN_CANCELED,
    }
    return dg.DagsterEvent(
        event_type_value=kinds[status].value, job_name="__ASSET_JOB", message="from a test"
    )


@pytest.fixture
def gardener(
    config: GardenerConfig,
    store: JobStore,
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
) -> Gardener:
    return Gardener(config, store, defs, instance)


def test_what_was_parsed_gets_its_tables(gardener: Gardener) -> None:
    job = gardener.parse(ANNOTATION2)
    result = gardener.tick("parsed_jobs")
    [request] = result.run_requests or ()
    assert request.partition_key == "2024-03-01"
    assert request.run_key == job.id
    assert request.tags[JOB_TAG] == job.id
    assert request.asset_selection == [
        dg.AssetKey(["tmp_ndt", "annotation2"]),
        dg.AssetKey(["raw_ndt", "annotation2"]),
    ]


def test_what_is_queued_or_being_parsed_gets_none(gardener: Gardener) -> None:
    gardener.ask(NDT7)
    assert gardener.runs("parsed_jobs") == []
    gardener.store.lease(1, now=NOW)
    assert gardener.runs("parsed_jobs") == []


def test_tables_of_the_historical_pass_are_behind_those_of_a_daily_job(gardener: Gardener) -> None:
    gardener.parse(ANNOTATION2, priority=Priority.HISTORICAL)
    gardener.parse(NDT7, priority=Priority.DAILY)
    requests = gardener.tick("parsed_jobs").run_requests or ()
    assert [int(request.tags[QUEUE_TAG]) for request in requests] == [10, -10]


def test_of_a_date_what_others_join_comes_first(gardener: Gardener) -> None:
    later = DAY + dt.timedelta(days=1)
    for name, date in ((NDT7, DAY), (ANNOTATION2, DAY), (ANNOTATION2, later)):
        gardener.parse(name, date, rank=0 if name == NDT7 else 1)
    runs = [(date, assets[-1]) for date, assets in gardener.runs("parsed_jobs")]
    assert runs == [
        ("2024-03-01", "raw_ndt/annotation2"),
        ("2024-03-01", "raw_ndt/ndt7"),
        ("2024-03-02", "raw_ndt/annotation2"),
    ]


def test_the_join_follows_in_the_same_run_where_it_is_ready(gardener: Gardener) -> None:
    gardener.make(ANNOTATION2)
    gardener.parse(NDT7)
    [(_, assets)] = gardener.runs("parsed_jobs")
    assert assets == ["tmp_ndt/ndt7", "raw_ndt/ndt7", "ndt/ndt7"]


def test_d15_the_join_waits_for_annotations_that_are_on_their_way(gardener: Gardener) -> None:
    gardener.make(ANNOTATION2)
    gardener.ask(ANNOTATION2)  # they are about to change
    gardener.parse(ANNOTATION2, requester="other")
    gardener.parse(NDT7)
    runs = gardener.runs("parsed_jobs")
    assert ("2024-03-01", ["tmp_ndt/ndt7", "raw_ndt/ndt7"]) in runs
    gardener.make(NDT7)
    assert gardener.joins() == []
    gardener.make(ANNOTATION2)
    assert len(gardener.joins()) == 1


def test_a_backfill_that_covers_the_tables_makes_them_itself(
    gardener: Gardener, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

    backfill = PartitionBackfill(
        backfill_id="b",
        status=BulkActionStatus.REQUESTED,
        from_failure=False,
        tags={},
        backfill_timestamp=NOW.timestamp(),
        asset_selection=[dg.AssetKey(["tmp_ndt", "annotation2"])],
    )
    gardener.instance.add_backfill(backfill)
    gardener.parse(ANNOTATION2, backfill_id="b", covers_tables=True)
    assert gardener.runs("parsed_jobs") == []
    # It ended without them: cancelled, or failed. Nothing is lost.
    gardener.instance.update_backfill(backfill.with_status(BulkActionStatus.CANCELED))
    assert len(gardener.runs("parsed_jobs")) == 1


def test_what_no_live_run_waits_for_is_announced_once(gardener: Gardener) -> None:
    gardener.parse(ANNOTATION2, requester="gone")
    died = gardener.tick("parsed_jobs", keep=False)
    assert len(died.asset_events) == 1
    said = gardener.tick("parsed_jobs")
    [event] = said.asset_events
    assert (event.asset_key, event.partition) == (
        dg.AssetKey(["parsed", "ndt", "annotation2"]),
        "2024-03-01",
    )
    assert len(json.loads(said.cursor or "[]")) == 1
    assert gardener.tick("parsed_jobs").asset_events == []


def test_what_a_live_run_waits_for_is_left_to_it(gardener: Gardener) -> None:
    run_id = gardener.run(DagsterRunStatus.NOT_STARTED)
    gardener.parse(ANNOTATION2, run_id=run_id)
    assert gardener.tick("parsed_jobs").asset_events == []


def test_a_table_run_that_was_killed_fails_its_job(gardener: Gardener) -> None:
    job = gardener.parse(ANNOTATION2)
    run_id = gardener.run(DagsterRunStatus.FAILURE)
    gardener.store.stage(job.key, JobState.LOADING, run_id=run_id, now=NOW)
    gardener.tick("parsed_jobs")
    failed = gardener.store.latest(job.key)
    assert failed is not None
    assert (failed.state, failed.failed_in) == (JobState.FAILED, JobState.LOADING)
    assert run_id in failed.error


def test_a_table_run_that_never_began_fails_its_job(gardener: Gardener) -> None:
    job = gardener.parse(ANNOTATION2)
    run_id = gardener.run(DagsterRunStatus.FAILURE, {JOB_TAG: job.id})
    gardener.tick("parsed_jobs")
    failed = gardener.store.latest(job.key)
    assert failed is not None
    assert failed.state is JobState.FAILED
    assert run_id in failed.error


def test_d16_new_annotations_join_again_what_reads_them_once(
    gardener: Gardener, config: GardenerConfig
) -> None:
    after = DAY + dt.timedelta(days=1)
    log, ndt7 = gardener.store.tables, config.source(NDT7)
    for date in (DAY, after):
        gardener.make(ANNOTATION2, date)
        gardener.make(NDT7, date)

    def join_all() -> list[str]:
        due = gardener.tick("joins").run_requests or ()
        for request in due:
            date = dt.date.fromisoformat(str(request.partition_key))
            inputs = log.join_inputs("raw_ndt.ndt7", "raw_ndt.annotation2", date)
            log.record_join(str(ndt7.joined_table), date, inputs, rows=1, run_id="j", now=NOW)
        return [str(request.partition_key) for request in due]

    unknown = "2024-03-03"  # an older gardener may have written its rows
    assert join_all() == ["2024-03-01", "2024-03-02", unknown]
    assert join_all() == []
    gardener.make(ANNOTATION2, DAY)
    assert join_all() == ["2024-03-01", "2024-03-02"]
    assert join_all() == []
    gardener.make(ANNOTATION2, after)
    assert join_all() == ["2024-03-02", unknown]
    assert join_all() == []


def test_a_join_is_as_urgent_as_the_job_that_waits_for_it(gardener: Gardener) -> None:
    later = DAY + dt.timedelta(days=1)
    for date, priority in ((DAY, Priority.HISTORICAL), (later, Priority.DAILY)):
        gardener.make(ANNOTATION2, date)
        gardener.parse(NDT7, date, priority=priority)
        gardener.make(NDT7, date)
    requests = gardener.tick("joins").run_requests or ()
    urgency = {request.partition_key: int(request.tags[QUEUE_TAG]) for request in requests}
    # For the rows of the third date, which an older gardener may have written, nobody waits.
    assert urgency == {"2024-03-01": -10, "2024-03-02": 10, "2024-03-03": 0}


def test_a_date_that_is_still_to_come_is_not_joined(gardener: Gardener) -> None:
    newest = newest_due(dt.datetime.now(dt.UTC))
    gardener.make(ANNOTATION2, newest)
    assert len(gardener.joins(newest)) == 1
    assert gardener.joins(newest + dt.timedelta(days=1)) == []


def test_a_join_that_was_refused_is_not_started_again_for_the_same_inputs(
    gardener: Gardener, config: GardenerConfig
) -> None:
    gardener.make(NDT7)
    assert len(gardener.joins()) == 1
    log = gardener.store.tables
    inputs = log.join_inputs("raw_ndt.ndt7", "raw_ndt.annotation2", DAY)
    log.begin_join("ndt.ndt7", DAY, inputs, run_id="j", now=NOW)
    assert gardener.joins() == []
    gardener.make(ANNOTATION2)
    assert len(gardener.joins()) == 1


def test_a_slow_join_of_older_inputs_does_not_leave_the_partition_stale(
    gardener: Gardener, config: GardenerConfig
) -> None:
    gardener.make(ANNOTATION2)
    gardener.make(NDT7)
    log, read = gardener.store.tables, ("raw_ndt.ndt7", "raw_ndt.annotation2", DAY)
    old = log.join_inputs(*read)
    log.begin_join("ndt.ndt7", DAY, old, run_id="slow", now=NOW)
    gardener.make(NDT7)
    first = gardener.joins()
    new = log.join_inputs(*read)
    log.begin_join("ndt.ndt7", DAY, new, run_id="quick", now=NOW)
    log.record_join("ndt.ndt7", DAY, new, rows=1, run_id="quick", now=NOW)
    log.record_join("ndt.ndt7", DAY, old, rows=1, run_id="slow", now=NOW)
    again = gardener.joins()
    assert len(again) == 1
    assert again != first  # or Dagster would not start it
