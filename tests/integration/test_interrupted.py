"""Runs of ``parse`` that end before their jobs do: cancelled or interrupted. Real processes.

One story on the shared stack, told once by the fixture ``story``. No parser works until its end, so
all jobs are queued while runs end.
"""

import datetime as dt
import os
import signal
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest
from dagster import RunsFilter
from dagster_instance import instance_at
from dagster_ui import DagsterUI
from stack_client import StackClient
from waiting import until

from gardener_api.jobs.job import Job, JobState
from gardener_dagster.assets.keys import PRIORITY_TAG
from gardener_dagster.local.demo.upload import upload_archives
from gardener_dagster.local.samples.archives import make_samples
from gardener_dagster.planning.due_tables import job_key

FIRST, SECOND, NINTH = (dt.date(2024, 10, day) for day in (1, 2, 9))
DAILY, HUNG = dt.date(2024, 10, 20), dt.date(2024, 10, 25)
DATES = (FIRST, SECOND, NINTH, DAILY, HUNG)
ASSET = ["parsed", "ndt", "annotation2"]
CHAIN = [ASSET, ["tmp_ndt", "annotation2"], ["raw_ndt", "annotation2"]]


@dataclass(kw_only=True)
class Story:
    """What happened."""

    backfill: str = ""
    status: str = ""
    cancelled: str = ""  # the backfill's run of the 1st and 2nd
    ninth: str = ""  # its run of the 9th, which got a SIGTERM
    daily: str = ""  # likewise
    forced: str = ""  # cancelled while its process hangs
    asked: dict[dt.date, Job] = field(default_factory=dict)
    after_cancel: dict[dt.date, Job] = field(default_factory=dict)
    after_sigterm: dict[dt.date, Job] = field(default_factory=dict)
    retries: dict[str, dg.DagsterRun] = field(default_factory=dict)
    arrived: dict[dt.date, Job] = field(default_factory=dict)


class Teller:
    """Does what happens."""

    def __init__(self, stack: StackClient, instance: dg.DagsterInstance) -> None:
        self.stack, self.instance = stack, instance
        self.ui = DagsterUI(url=stack.settings.dagster_url)
        self.story = Story()

    def jobs(self, dates: Collection[dt.date] = DATES) -> dict[dt.date, Job]:
        source = self.stack.config.source("ndt/annotation2")
        found = self.stack.store.days.latest([job_key(source, date) for date in dates])
        return {key.date: job for key, job in found.items()}

    def are(self, state: JobState, *dates: dt.date) -> bool:
        jobs = self.jobs(dates)
        return len(jobs) == len(dates) and all(job.state is state for job in jobs.values())

    def run_of(self, date: dt.date) -> str:
        """The run that waits for the job of that date."""
        job = self.jobs([date])[date]
        return self.stack.store.requests(job.number)[-1].run_id

    def all_are_asked_for(self) -> None:
        self.story.backfill = self.stack.dagster.backfill(CHAIN, [FIRST, SECOND, NINTH])
        self.story.daily = self.ui.launch([ASSET], DAILY, DAILY, {PRIORITY_TAG: "daily"})
        self.story.forced = self.ui.launch([ASSET], HUNG, HUNG)
        until(lambda: self.are(JobState.QUEUED, *DATES), "not all dates were asked for")
        self.story.asked = self.jobs()
        self.story.cancelled, self.story.ninth = self.run_of(FIRST), self.run_of(NINTH)

    def one_run_of_the_backfill_is_terminated(self) -> None:
        self.ui.terminate(self.story.cancelled)
        until(lambda: self.are(JobState.WITHDRAWN, FIRST, SECOND), "its jobs were not withdrawn")
        until(lambda: self.ui.status(self.story.cancelled) == "CANCELED", "it was not cancelled")
        self.story.after_cancel = self.jobs()

    def two_runs_get_a_sigterm(self) -> None:
        interrupted = (self.story.daily, self.story.ninth)
        for run_id in interrupted:
            os.kill(self.ui.process_of(run_id), signal.SIGTERM)
        for run_id in interrupted:
            until(lambda r=run_id: self.ui.status(r) == "FAILURE", "it does not end")  # type: ignore[misc]
        self.story.after_sigterm = self.jobs([DAILY, NINTH])

    def one_is_cancelled_whose_process_cannot_notice(self) -> None:
        """Its machine hangs, and a person forces the termination: Dagster then marks it, no more.

        (Not by the webserver: it would wait for minutes for the code server, which waits for that
        process.)
        """
        pid = self.ui.process_of(self.story.forced)
        os.kill(pid, signal.SIGSTOP)
        try:
            run = self.instance.get_run_by_id(self.story.forced)
            assert run is not None
            self.instance.report_run_canceling(run)
            self.instance.report_run_canceled(run)
            until(lambda: self.are(JobState.WITHDRAWN, HUNG), "nobody took its job back")
        finally:
            os.kill(pid, signal.SIGKILL)

    def parsers_come_back(self) -> None:
        for run_id in (self.story.daily, self.story.ninth):
            until(lambda r=run_id: self.retry_of(r) is not None, "it was not retried")  # type: ignore[misc]
        self.stack.processes.part("worker").signal(signal.SIGCONT)
        until(lambda: self.are(JobState.COMPLETE, DAILY, NINTH), "the dates do not arrive")
        self.story.arrived = self.jobs()
        for run_id in (self.story.daily, self.story.ninth):
            until(lambda r=run_id: self.has_ended(r), "the retry goes on")  # type: ignore[misc]
            retry = self.retry_of(run_id)
            assert retry is not None
            self.story.retries[run_id] = retry
        self.story.status = self.stack.wait_for_backfill(self.story.backfill)

    def retry_of(self, run_id: str) -> dg.DagsterRun | None:
        runs = self.instance.get_runs(RunsFilter(tags={"dagster/parent_run_id": run_id}))
        return runs[0] if runs else None

    def has_ended(self, run_id: str) -> bool:
        retry = self.retry_of(run_id)
        return retry is not None and retry.is_finished


@pytest.fixture(scope="module")
def story(stack: StackClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder: Path = tmp_path_factory.mktemp("archives")
    stack.expected.update(make_samples(folder, DATES))
    upload_archives(folder, stack.settings.storage_url, stack.config, DATES)
    worker = stack.processes.part("worker")
    worker.signal(signal.SIGSTOP)
    try:
        with instance_at(stack.settings.home / "dagster") as instance:
            teller = Teller(stack, instance)
            teller.all_are_asked_for()
            teller.one_run_of_the_backfill_is_terminated()
            teller.two_runs_get_a_sigterm()
            teller.one_is_cancelled_whose_process_cannot_notice()
            teller.parsers_come_back()
            yield teller.story
    finally:
        worker.signal(signal.SIGCONT)


def test_d25_terminating_one_run_of_a_backfill_leaves_the_jobs_of_the_others(story: Story) -> None:
    assert story.cancelled != story.ninth, "dates that are not consecutive are two runs"
    assert story.after_cancel[NINTH] == story.asked[NINTH]
    for date in (FIRST, SECOND):
        job = story.after_cancel[date]
        assert job.detail == f"withdrawn by a person, who cancelled Dagster run {story.cancelled}"


def test_d25_the_other_runs_date_arrives(story: Story, stack: StackClient) -> None:
    assert story.status == "COMPLETED_FAILED", "what was cancelled counts as failed"
    assert stack.value("raw_ndt.annotation2", NINTH) == (
        stack.expected["annotation2", NINTH].raw_rows
    )
    assert stack.materialized("raw_ndt", "annotation2")[NINTH.isoformat()] == "MATERIALIZED"


@pytest.mark.parametrize("date", [DAILY, NINTH], ids=["daily", "backfill"])
def test_d26_a_sigterm_withdraws_nothing(story: Story, date: dt.date) -> None:
    assert story.after_sigterm[date] == story.asked[date]
    assert story.asked[date].state is JobState.QUEUED


@pytest.mark.parametrize(("date", "name"), [(DAILY, "daily"), (NINTH, "ninth")])
def test_d26_the_run_is_retried_and_its_date_arrives(
    story: Story, stack: StackClient, date: dt.date, name: str
) -> None:
    retry = story.retries[getattr(story, name)]
    assert retry.status is dg.DagsterRunStatus.SUCCESS
    assert retry.tags["dagster/retry_number"] == "1"
    before, job = story.asked[date], story.arrived[date]
    assert (job.number, job.generation, job.attempt) == (before.number, 1, 1)
    [request] = stack.store.requests(job.number)
    assert (request.run_id, request.withdrawn) == (retry.run_id, None)
    assert request.reported is not None
    want = stack.expected["annotation2", date].raw_rows
    assert stack.value("raw_ndt.annotation2", date) == want
    assert stack.value("raw_ndt.annotation2", date, "COUNT(DISTINCT id)") == want


def test_d26_what_a_cancelled_run_cannot_take_back_itself_is_taken_back_for_it(
    story: Story, stack: StackClient
) -> None:
    [request] = stack.store.requests(story.asked[HUNG].number)
    assert request.withdrawn_by == f"a person, who cancelled Dagster run {story.forced}"
    assert request.withdrawn is not None
