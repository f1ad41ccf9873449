"""The queue with the real instance configuration; the daemon's own choice of what to start."""

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import (
    EmptyWorkspaceTarget,
    GrpcServerTarget,
    WorkspaceLoadTarget,
)
from dagster._daemon.run_coordinator import QueuedRunCoordinatorDaemon
from waiting import until

from gardener_api.jobs.job import Priority
from gardener_dagster.assets.keys import (
    BACKFILL_TAG,
    PARSE_TAG,
    PRIORITY_TAG,
    QUEUE_ORDER,
    QUEUE_TAG,
    TABLES_TAG,
    URGENT_TABLES_TAG,
)
from gardener_dagster.run_queue import GardenerRunQueue, limit_tags

DAILY = {QUEUE_TAG: QUEUE_ORDER[Priority.DAILY]}
BACKFILL = {BACKFILL_TAG: "b"}
ROOT = Path(__file__).parent.parent.parent
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(
        GrpcServerCodeLocationOrigin(host="localhost", port=1, location_name="gardener"),
        "__repository__",
    ),
    "__ASSET_JOB",
)
PARSED = dg.AssetKey(["parsed", "ndt", "ndt7"])


def raw(experiment: str) -> dg.AssetKey:
    return dg.AssetKey([f"raw_{experiment}", "scamper1"])


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    home = tmp_path_factory.mktemp("home")
    shutil.copy(ROOT / "dagster.yaml", home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        with dg.DagsterInstance.get() as real:
            yield real


class Queue:
    """Runs come in, and start when the daemon says so."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance

    def submit(self, key: dg.AssetKey, tags: dict[str, str] | None = None) -> dg.DagsterRun:
        group = "ndt" if key == PARSED else key.path[0].removeprefix("raw_")
        own = tags or {}
        run = dg.DagsterRun(
            job_name="__ASSET_JOB",
            tags=own | limit_tags(own, {key: group}),
            status=DagsterRunStatus.QUEUED,
            remote_job_origin=ORIGIN,
        )
        return self._instance.run_storage.add_run(run)

    def start(self) -> list[dg.DagsterRun]:
        """What the daemon would start now; it is started."""
        daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
        config = self._instance.get_concurrency_config()
        runs = daemon._get_runs_to_dequeue(self._instance, config, None)
        for run in runs:
            started = dg.DagsterEvent(
                event_type_value=dg.DagsterEventType.RUN_START.value, job_name=run.job_name
            )
            self._instance.run_storage.handle_run_event(run.run_id, started)
        return runs


@pytest.fixture
def queue(instance: dg.DagsterInstance) -> Queue:
    instance.run_storage.wipe()
    return Queue(instance)


def test_the_instance_has_this_queue(instance: dg.DagsterInstance) -> None:
    assert isinstance(instance.run_coordinator, GardenerRunQueue)


def test_a_run_is_tagged_with_what_it_does() -> None:
    assert limit_tags({}, {PARSED: "ndt"}) == {PARSE_TAG: "backfill"}
    assert limit_tags({PRIORITY_TAG: "daily"}, {PARSED: "ndt"}) == {PARSE_TAG: "daily"}
    tables = {raw("wehe"): "wehe", raw("ndt"): "ndt"}
    assert limit_tags(BACKFILL, tables) == {TABLES_TAG: "ndt+wehe"}
    assert limit_tags({QUEUE_TAG: "-10"}, tables) == {TABLES_TAG: "ndt+wehe"}
    assert limit_tags(DAILY, tables) == {URGENT_TABLES_TAG: "ndt+wehe"}
    assert limit_tags({TABLES_TAG: "ndt"}, tables) == {TABLES_TAG: "ndt+wehe"}, "again"
    assert limit_tags({}, tables) == {URGENT_TABLES_TAG: "ndt+wehe"}, "a person launched it"


def test_d44_a_run_over_the_whole_chain_holds_no_place_of_tables_while_it_waits(
    queue: Queue,
) -> None:
    whole = {PARSED: "ndt", raw("ndt"): "ndt"}
    assert limit_tags({}, whole) == {PARSE_TAG: "backfill"}
    for _ in range(6):
        queue.submit(PARSED, limit_tags({}, whole))
    assert len(queue.start()) == 6
    for experiment in ("ndt", "wehe"):
        queue.submit(raw(experiment), BACKFILL)
    assert len(queue.start()) == 2


def test_waiting_parse_runs_starve_neither_tables_nor_daily_ones(queue: Queue) -> None:
    for _ in range(40):
        queue.submit(PARSED)
    assert len(queue.start()) == 6
    queue.submit(raw("ndt"), BACKFILL)
    queue.submit(PARSED, {PRIORITY_TAG: "daily"})
    started = queue.start()
    assert [run.tags.get(PARSE_TAG) for run in started] == [None, "daily"]


def test_the_historical_pass_has_one_run(queue: Queue) -> None:
    for _ in range(3):
        queue.submit(PARSED, {PRIORITY_TAG: "historical"})
    assert len(queue.start()) == 1


def test_one_experiment_does_not_starve_another(queue: Queue) -> None:
    for experiment in ("ndt", "wehe", "msak"):
        for _ in range(8):
            queue.submit(raw(experiment), BACKFILL)
    assert len(queue.start()) == 3
    queue.submit(raw("utilization"), BACKFILL)
    [run] = queue.start()
    assert run.tags[TABLES_TAG] == "utilization"


def test_all_limits_fit_together(queue: Queue) -> None:
    for priority in ("daily", "backfill", "historical"):
        for _ in range(8):
            queue.submit(PARSED, {PRIORITY_TAG: priority})
    for experiment in ("ndt", "wehe", "msak", "utilization"):
        for _ in range(8):
            queue.submit(raw(experiment), BACKFILL)
            queue.submit(raw(experiment), DAILY)
    started = queue.start()
    counts = {PARSE_TAG: 4 + 6 + 1, TABLES_TAG: 4, URGENT_TABLES_TAG: 8}
    assert {tag: sum(tag in run.tags for run in started) for tag in counts} == counts


@pytest.mark.parametrize("tags", [DAILY, {}], ids=["daily", "launched by hand"])
def test_urgent_tables_do_not_wait_for_a_place_of_a_backfill(
    queue: Queue, tags: dict[str, str]
) -> None:
    for _ in range(8):
        queue.submit(raw("ndt"), BACKFILL)
    assert len(queue.start()) == 1
    urgent = {queue.submit(raw("ndt"), tags).run_id for _ in range(7)}
    assert {run.run_id for run in queue.start()} == urgent


def test_the_tables_of_a_daily_job_come_before_those_of_a_backfill(queue: Queue) -> None:
    for _ in range(8):
        queue.submit(raw("ndt"), {QUEUE_TAG: "-10"})
    daily = queue.submit(raw("ndt"), DAILY)
    assert queue.start()[0].run_id == daily.run_id


def test_a_run_that_is_due_while_the_code_server_restarts_waits_for_it(
    queue: Queue, instance: dg.DagsterInstance
) -> None:
    run = queue.submit(raw("ndt"), BACKFILL)
    instance.report_dagster_event(dg.DagsterEvent.job_enqueue(run), run_id=run.run_id)
    target = GrpcServerTarget(host="localhost", port=1, socket=None, location_name="gardener")
    with pytest.warns(UserWarning, match="gardener"):
        launch_in_vain(instance, run, target)
    kept = instance.get_run_by_id(run.run_id)
    assert kept is not None
    assert kept.status is DagsterRunStatus.QUEUED


def test_a_run_that_is_due_while_the_daemon_ends_is_launched_again(
    queue: Queue, instance: dg.DagsterInstance
) -> None:
    """A daemon that ends lets go of the code location, while its threads still launch runs."""
    run = queue.submit(raw("ndt"), BACKFILL)
    instance.report_dagster_event(dg.DagsterEvent.job_enqueue(run), run_id=run.run_id)
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
    with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as workspace, daemon:
        until(lambda: bool(list(daemon.run_iteration(workspace))) and ended(instance, run), "kept")
    failed = instance.get_run_by_id(run.run_id)
    assert failed is not None
    assert failed.status is DagsterRunStatus.FAILURE
    assert failed.tags["dagster/will_retry"] == "true"


def ended(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    found = instance.get_run_by_id(run.run_id)
    return found is not None and found.is_finished


def launch_in_vain(
    instance: dg.DagsterInstance, run: dg.DagsterRun, target: WorkspaceLoadTarget
) -> None:
    """The daemon tries to launch the run, until it is in the queue for the second time."""
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
    with WorkspaceProcessContext(instance, target) as workspace, daemon:
        deadline = time.monotonic() + 30
        while len(enqueued(instance, run)) < 2:
            assert time.monotonic() < deadline, "the run was not queued again"
            list(daemon.run_iteration(workspace))


def enqueued(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Sequence[dg.EventLogRecord]:
    event_type = dg.DagsterEventType.RUN_ENQUEUED
    return instance.get_records_for_run(run.run_id, of_type=event_type).records
