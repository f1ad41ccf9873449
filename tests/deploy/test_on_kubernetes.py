"""The gardener on Kubernetes: Dagster's own run launcher, PostgreSQL, two sidecars, lost pods.

One story, told once by the fixture ``story``: a whole-chain backfill and a daily run, while pods of
runs are evicted, the code server's pod is replaced and a sidecar is killed.
"""

import datetime as dt
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import daily_schedule
import pytest
import requests
from dagster import DagsterRunStatus, RunsFilter
from dagster_instance import instance_at
from kubernetes_api import Pod
from kubernetes_stack import (
    WORKERS,
    KubernetesStack,
    emulators,
    kubernetes_stack,
)
from stack_client import wait_for_backfill
from waiting import until

from gardener_api.jobs.job import Job, JobState
from gardener_dagster.assets.keys import PARSE_TAG, TABLES_TAG, URGENT_TABLES_TAG
from gardener_dagster.local.demo.upload import upload_archives
from gardener_dagster.local.samples.archives import Expected, make_samples
from gardener_dagster.planning.daily import newest_due
from gardener_dagster.planning.due_tables import job_key

CONFIG = """
start_date: 2024-01-01
tracker: {timeout: 20s, max_attempts: 5}
monitor: {polling_interval: 2s}
late_archives: {days: 0}
daily: {catch_up_days: 1}
tables: {gather: 2s}
history: {enabled: false}
sources:
- {bucket: archive-mlab, experiment: ndt, datatype: annotation2, daily_only: true}
- {bucket: archive-mlab, experiment: ndt, datatype: ndt7, target_datasets: {join: ndt}}
"""
DATES = tuple(dt.date(2024, 3, day) for day in (1, 2, 3))
CHAIN = [
    ["parsed", "ndt", "annotation2"], ["tmp_ndt", "annotation2"], ["raw_ndt", "annotation2"],
    ["parsed", "ndt", "ndt7"], ["tmp_ndt", "ndt7"], ["raw_ndt", "ndt7"], ["ndt", "ndt7"],
]  # fmt: skip
BACKFILL_SECONDS = 300.0
SLOW = dt.timedelta(seconds=3)

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(900),  # three minutes on a machine that does nothing else
]


@dataclass(kw_only=True)
class Story:
    """What happened."""

    daily: dt.date
    expected: dict[tuple[str, dt.date], Expected] = field(default_factory=dict)
    status: str = ""
    waiting: str = ""  # the run that was evicted while it waited
    tables: str = ""  # the run that was evicted in the middle of its tables
    stage: str = ""  # where its job was
    retries: dict[str, dg.DagsterRun] = field(default_factory=dict)
    runs: dict[str, dg.DagsterRun] = field(default_factory=dict)


class Teller:
    """Does what happens."""

    def __init__(self, stack: KubernetesStack, instance: dg.DagsterInstance, story: Story) -> None:
        self.stack, self.instance, self.story = stack, instance, story

    def jobs(self, *dates: dt.date) -> list[Job]:
        keys = [job_key(source, date) for source in self.stack.config.sources for date in dates]
        return list(self.stack.store.days.latest(keys).values())

    def are(self, state: JobState, *dates: dt.date) -> bool:
        jobs = self.jobs(*dates)
        return len(jobs) == 2 * len(dates) and all(job.state is state for job in jobs)

    def signal_parsers(self, number: int) -> None:
        for name in WORKERS:
            self.stack.processes.part(name).signal(number)

    def pod_of(self, run_id: str) -> Pod:
        [pod] = self.stack.cluster.pods_of_run(run_id)
        return pod

    def all_dates_are_asked_for(self) -> str:
        self.signal_parsers(signal.SIGSTOP)
        backfill = self.stack.dagster.backfill(CHAIN, DATES)
        then = last_tick() - dt.timedelta(minutes=5)
        # A scheduler that runs would look at the schedule again at its next tick.
        self.stack.replace("daemon", lambda: daily_schedule.turn_on(self.instance, last_tick=then))
        until(lambda: self.are(JobState.QUEUED, *DATES, self.story.daily), "not all are asked for")
        daily_schedule.turn_off(self.instance)
        return backfill

    def a_waiting_runs_pod_is_evicted(self) -> None:
        [job] = [j for j in self.jobs(DATES[0]) if j.key.datatype == "ndt7"]
        self.story.waiting = self.stack.store.requests(job.number)[-1].run_id
        pod = self.pod_of(self.story.waiting)
        self.stack.cluster.evict(pod)
        until(lambda: self.retry_of(self.story.waiting), "the evicted run is not retried")

    def the_code_servers_pod_is_replaced(self) -> None:
        self.stack.replace("code server")

    def parsers_work_and_a_sidecar_is_killed(self) -> None:
        fault = {"action": "delay", "job_type": "copy", "seconds": 60}
        url = f"http://127.0.0.1:{self.stack.ports['bigquery']}/faults"
        requests.post(url, json=[fault], timeout=10).raise_for_status()
        self.signal_parsers(signal.SIGCONT)
        until(
            lambda: self.any(JobState.INIT, JobState.PARSING), "no parser takes a job", pause=0.01
        )
        self.stack.kill_sidecar(0)

    def a_pod_is_evicted_in_the_middle_of_its_tables(self) -> None:
        until(lambda: self.copied_slowly(), "no date comes to the copy that is delayed")
        job = self.copied_slowly()
        assert job is not None
        self.story.tables, self.story.stage = job.run_id, job.state
        self.stack.cluster.evict(self.pod_of(job.run_id))
        until(lambda: self.retry_of(self.story.tables), "the evicted run is not retried")

    def all_dates_arrive(self, backfill: str) -> None:
        self.story.status = wait_for_backfill(
            self.stack.dagster, self.stack.processes, backfill, BACKFILL_SECONDS
        )
        dates = (*DATES, self.story.daily)
        until(lambda: self.are(JobState.COMPLETE, *dates), "not all dates arrive")
        until(lambda: all(run.is_finished for run in self.instance.get_runs()), "a run goes on")
        self.story.runs = {run.run_id: run for run in self.instance.get_runs()}
        for run_id in (self.story.waiting, self.story.tables):
            retry = self.retry_of(run_id)
            assert retry is not None
            self.story.retries[run_id] = retry

    def copied_slowly(self) -> Job | None:
        """The job whose copy the fault delays."""
        job = self.any(JobState.COPYING)
        slow = job is not None and dt.datetime.now(dt.UTC) - job.entered > SLOW
        return job if slow else None

    def any(self, *states: JobState) -> Job | None:
        found = [job for job in self.jobs(*DATES, self.story.daily) if job.state in states]
        return found[0] if found else None

    def retry_of(self, run_id: str) -> dg.DagsterRun | None:
        runs = self.instance.get_runs(RunsFilter(tags={"dagster/parent_run_id": run_id}))
        return runs[0] if runs else None


def last_tick() -> dt.datetime:
    """When the schedule was due last: at half past, from 10 to 23 o'clock."""
    tick = dt.datetime.now(dt.UTC).replace(minute=30, second=0, microsecond=0)
    while tick > dt.datetime.now(dt.UTC) or tick.hour < 10:
        tick -= dt.timedelta(hours=1)
    return tick


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesStack]:
    with kubernetes_stack(tmp_path_factory.mktemp("kubernetes"), CONFIG) as started:
        yield started


@pytest.fixture(scope="module")
def story(stack: KubernetesStack, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder: Path = tmp_path_factory.mktemp("archives")
    story = Story(daily=newest_due(last_tick()))
    dates = (*DATES, story.daily)
    story.expected = make_samples(folder, dates)
    upload_archives(folder, stack.storage_url, stack.config, dates)
    with emulators(stack), instance_at(stack.daemon_home) as instance:
        teller = Teller(stack, instance, story)
        backfill = teller.all_dates_are_asked_for()
        teller.a_waiting_runs_pod_is_evicted()
        teller.the_code_servers_pod_is_replaced()
        teller.parsers_work_and_a_sidecar_is_killed()
        teller.a_pod_is_evicted_in_the_middle_of_its_tables()
        teller.all_dates_arrive(backfill)
    return story


def test_the_backfill_ends_well(story: Story) -> None:
    assert story.status == "COMPLETED_SUCCESS"


@pytest.mark.parametrize("number", range(4))
def test_every_date_is_complete_and_each_row_once(
    story: Story, stack: KubernetesStack, number: int
) -> None:
    date = (*DATES, story.daily)[number]
    tables = {
        "raw_ndt.annotation2": story.expected["annotation2", date].raw_rows,
        "raw_ndt.ndt7": story.expected["ndt7", date].raw_rows,
        "ndt.ndt7": story.expected["ndt7", date].joined_rows,
    }
    for table, rows in tables.items():
        assert stack.value(table, date, "COUNT(*)") == rows, table
        assert stack.value(table, date, "COUNT(DISTINCT id)") == rows, table


def test_evicted_runs_failed_and_their_retries_succeeded(story: Story) -> None:
    assert story.stage == JobState.COPYING
    for run_id in (story.waiting, story.tables):
        assert story.runs[run_id].status is DagsterRunStatus.FAILURE
        assert story.retries[run_id].status is DagsterRunStatus.SUCCESS


def test_an_interrupted_parse_asked_once(story: Story, stack: KubernetesStack) -> None:
    key = job_key(stack.config.source("ndt/ndt7"), DATES[0])
    job = stack.store.latest(key)
    assert job is not None
    assert job.generation == 1, "the retry attached to the job"


def test_every_run_was_a_pod_of_its_kind(story: Story, stack: KubernetesStack) -> None:
    for run in story.runs.values():
        [pod] = stack.cluster.pods_of_run(run.run_id)
        annotations = pod.job["spec"]["template"]["metadata"].get("annotations") or {}
        [container] = pod.spec["containers"]
        safe = annotations.get("cluster-autoscaler.kubernetes.io/safe-to-evict")
        assert len({PARSE_TAG, TABLES_TAG, URGENT_TABLES_TAG} & run.tags.keys()) == 1, run.tags
        assert safe == ("false" if PARSE_TAG in run.tags else None)
        assert container["image"] == "gardener:latest"
        assert container["resources"]["limits"]["memory"] == (
            "512Mi" if PARSE_TAG in run.tags else "768Mi"
        )
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_nothing_is_shared_but_the_network(story: Story, stack: KubernetesStack) -> None:
    """No process wrote where another one, or a read-only file system, is."""
    for part in stack.processes.parts:
        folder = part.log.parent
        # (Where it can, Dagster makes empty folders for its telemetry.)
        files = [path.name for path in (folder / "dagster_home").rglob("*") if path.is_file()]
        assert files == ["dagster.yaml"], part.name
        assert not list((folder / "work").iterdir())
        assert not list((folder / "home").iterdir())
    for pod in stack.cluster.pods.values():
        assert not list((pod.folder / "work").iterdir())


def test_compute_logs_are_in_the_bucket(story: Story, stack: KubernetesStack) -> None:
    names = stack.objects("gardener-logs-my-project")
    for retry in story.retries.values():
        assert any(retry.run_id in name for name in names)
