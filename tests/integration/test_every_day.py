"""Days that were missed, late archives, the historical pass, and what people do about dates.

One story on the shared stack, told once by the fixture ``story``; the tests look at what came of
it. What can go on at the same time does: Dagster's backfill daemon looks every 30 s only.
"""

import datetime as dt
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import daily_schedule
import pytest
from dagster import DagsterRunStatus, RunsFilter
from dagster_instance import instance_at
from dagster_ui import DagsterUI
from job_requests import request_for
from renewing import renewing
from stack_client import StackClient
from waiting import until

from gardener_api.jobs.job import ENDED, Job, JobKey, JobState, Priority
from gardener_api.jobs.parser_calls import Error
from gardener_dagster.assets.keys import HISTORY_TAG, PARSE_TAG, PRIORITY_TAG, TABLES_TAG
from gardener_dagster.local.demo.upload import upload_archives
from gardener_dagster.local.samples.archives import make_samples
from gardener_dagster.planning.daily import due_at, newest_due
from gardener_dagster.planning.due_tables import job_key

ONE_DAY = dt.timedelta(days=1)
NEWEST = newest_due(dt.datetime.now(dt.UTC))
MISSED = tuple(NEWEST - n * ONE_DAY for n in (2, 1, 0))
DAMAGED = MISSED[0]
"""The one with archives; those of ndt7 are damaged at first."""
RELOADED = dt.date(2024, 3, 1)
CANCELLED = tuple(dt.date(2024, 7, day) for day in (1, 2, 3))


@dataclass(kw_only=True)
class Story:
    """What happened."""

    instance: dg.DagsterInstance
    caught_up: list[dg.DagsterRun] = field(default_factory=list)
    failed: dict[JobKey, Job] = field(default_factory=dict)
    re_executed: dg.DagsterRun | None = None
    after_re_execution: dict[JobKey, Job] = field(default_factory=dict)
    reload: subprocess.CompletedProcess[str] | None = None
    reloaded_before: tuple[int, int] = (0, 0)
    reloaded_after: tuple[int, int] = (0, 0)
    cancelled: dict[JobKey, Job] = field(default_factory=dict)
    history: list[dg.DagsterRun] = field(default_factory=list)
    late: list[dg.DagsterRun] = field(default_factory=list)
    versions_before: list[int] = field(default_factory=list)
    versions_after: list[int] = field(default_factory=list)
    runs_between: list[str] = field(default_factory=list)


class Teller:
    """Does what happens."""

    def __init__(self, stack: StackClient, instance: dg.DagsterInstance, folder: Path) -> None:
        self.stack, self.instance = stack, instance
        self.folder, self.whole, self.queued, self.late = (
            folder / name for name in ("first", "whole", "queued", "late")
        )
        self.ui = DagsterUI(url=stack.settings.dagster_url)
        self.story = Story(instance=instance)

    def _upload(self, folder: Path, *dates: dt.date) -> None:
        settings = self.stack.settings
        upload_archives(folder, settings.storage_url, self.stack.config, dates)

    def jobs(self, dates: tuple[dt.date, ...], *sources: str) -> dict[JobKey, Job]:
        names = sources or tuple(source.name for source in self.stack.config.sources)
        keys = [job_key(self.stack.config.source(n), date) for n in names for date in dates]
        return self.stack.store.days.latest(keys)

    def runs(self, **tags: str) -> list[dg.DagsterRun]:
        found = self.instance.get_runs(RunsFilter(tags=tags))
        return sorted(found, key=self._created)

    def _created(self, run: dg.DagsterRun) -> dt.datetime:
        record = self.instance.get_run_record_by_id(run.run_id)
        assert record is not None
        return record.create_timestamp

    def restart_daemon(self, between: Callable[[], None] = lambda: None) -> None:
        daemon = self.stack.processes.part("daemon")
        daemon.signal(signal.SIGTERM)
        until(lambda: daemon.exit_code is not None, "the daemon does not end")
        between()
        daemon.process = None
        daemon.start()

    # -- three days are missed, then caught up; one of them has damaged archives

    def miss_three_days(self) -> None:
        samples = make_samples(self.folder, [DAMAGED])
        self.stack.expected.update(samples)
        archives = f"ndt/ndt7/{DAMAGED:%Y/%m/%d}"
        shutil.copytree(self.folder / archives, self.whole / archives)
        for archive in (self.folder / archives).iterdir():
            archive.write_bytes(b"this is no archive")
        self._upload(self.folder, DAMAGED)
        self.restart_daemon(self._three_days_pass)

    def _three_days_pass(self) -> None:
        """As the store and Dagster's own were four days ago."""
        last = MISSED[0] - ONE_DAY
        for source in self.stack.config.sources:
            key = job_key(source, last)
            request = request_for(
                key,
                requester="then",
                run_id="then",
                priority=Priority.DAILY,
                daily=True,
                join="",
                archives=0,
            )
            self.stack.store.enqueue([request], now=due_at(last))
            for state in (JobState.LOADING, JobState.COMPLETE):
                self.stack.store.stage(key, state, run_id="then", now=due_at(last))
        daily_schedule.turn_on(self.instance, last_tick=due_at(last))

    def catch_up(self) -> None:
        until(lambda: len(self.jobs(MISSED)) == 6, "the missed days were not asked for")
        daily_schedule.turn_off(self.instance)
        until(lambda: all(r.is_finished for r in self.runs(**{PRIORITY_TAG: "daily"})), "no end")
        self.story.caught_up = self.runs(**{PRIORITY_TAG: "daily"})
        self.story.failed = self.jobs(MISSED)

    def re_execute(self) -> None:
        self._upload(self.whole, DAMAGED)
        run_id = self.ui.re_execute(self.story.caught_up[0].run_id)

        def over() -> bool:
            self.story.re_executed = self.instance.get_run_by_id(run_id)
            return self.story.re_executed is not None and self.story.re_executed.is_finished

        until(over, "the damaged date was not parsed again")
        self.story.after_re_execution = self.jobs(MISSED)

    # -- at once: tables only from a shell, a backfill that is cancelled, the historical pass

    def reload_cancel_and_pass(self) -> None:
        for date in CANCELLED:
            path = self.queued / f"ndt/ndt7/{date:%Y/%m/%d}/a.tgz"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"nobody parses it")
        self._upload(self.queued, *CANCELLED)
        worker = self.stack.processes.part("worker")
        with ExitStack() as cleanup:
            worker.signal(signal.SIGSTOP)
            cleanup.callback(worker.signal, signal.SIGCONT)
            self.story.reloaded_before = self._versions(RELOADED)
            reload = cleanup.enter_context(self._reload())
            backfill = self.stack.dagster.backfill([["parsed", "ndt", "ndt7"]], CANCELLED)
            self.ui.turn("historical_pass", on=True)
            until(lambda: self._parts_of_history() >= 1, "the historical pass does not begin")
            until(lambda: len(self.jobs(CANCELLED, "ndt/ndt7")) == 3, "the backfill did not ask")
            [held] = self.stack.store.lease(1, parser="test", now=dt.datetime.now(dt.UTC))
            assert held.key.date == CANCELLED[0]
            cleanup.enter_context(renewing(self.stack.store, held.id))
            self.ui.cancel_backfill(backfill)
            until(lambda: self._parts_of_history() >= 2, "the pass does not go on")
            self.restart_daemon()  # in the middle of the pass, and of the cancelling

            def withdrawn() -> bool:
                self.story.cancelled = self.jobs(CANCELLED, "ndt/ndt7")
                states = [job.state for job in self.story.cancelled.values()]
                return states.count(JobState.WITHDRAWN) == 2

            until(withdrawn, "the backfill was not withdrawn")
            self.stack.store.apply([Error(held.id, "enough")], now=dt.datetime.now(dt.UTC))
            worker.signal(signal.SIGCONT)
            until(lambda: self._parts_of_history() >= 3, "the pass does not begin again")
            self.ui.turn("historical_pass", on=False)
            output, _ = reload.communicate(timeout=200)
            self.story.reload = subprocess.CompletedProcess([], reload.returncode, output)
            self.story.reloaded_after = self._versions(RELOADED)
        until(
            lambda: all(r.is_finished for r in self.runs(**{PRIORITY_TAG: "historical"})),
            "the historical pass goes on",
        )
        self.story.history = self.runs(**{PRIORITY_TAG: "historical"})

    def _parts_of_history(self) -> int:
        return len({run.tags[HISTORY_TAG] for run in self.runs(**{PRIORITY_TAG: "historical"})})

    def _reload(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [
                sys.executable, "-m", "gardener_dagster.cli.main", "backfill",
                "--source", "ndt/ndt7", "--dates", RELOADED.isoformat(), "--tables-only", "--wait",
                "--dagster-url", self.stack.settings.dagster_url,
            ],
            env=self.stack.settings.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip

    def _versions(self, date: dt.date) -> tuple[int, int]:
        tables = self.stack.store.tables
        raw, joined = (tables.partition(table, date) for table in ("raw_ndt.ndt7", "ndt.ndt7"))
        return raw.version if raw else 0, joined.version if joined else 0

    # -- annotations come late

    def annotations_come_late(self) -> None:
        self._until_quiet()
        self.story.versions_before = self._annotated()
        begun = {run.run_id for run in self.runs()}
        archives = Path(f"ndt/annotation2/{DAMAGED:%Y/%m/%d}")
        one = sorted((self.folder / archives).iterdir())[0]
        (self.late / archives).mkdir(parents=True)
        shutil.copy(one, self.late / archives / f"late-{one.name}")
        self._upload(self.late, DAMAGED)
        self.ui.turn("late_archives", on=True)
        [before] = self.jobs((DAMAGED,), "ndt/annotation2").values()

        def over() -> bool:
            [job] = self.jobs((DAMAGED,), "ndt/annotation2").values()
            return job.number > before.number and job.state is JobState.COMPLETE

        until(over, "the late archive was not parsed")
        self._until_quiet()
        self.story.versions_after = self._annotated()
        self.story.runs_between = [
            run.tags.get("dagster/run_key", run.run_id)
            for run in self.runs()
            if run.run_id not in begun
        ]
        self.story.late = self.runs(**{"dagster/sensor_name": "late_archives"})

    def _annotated(self) -> list[int]:
        tables, found = self.stack.store.tables, []
        for table, date in (
            ("raw_ndt.annotation2", DAMAGED),
            ("ndt.ndt7", DAMAGED),
            ("ndt.ndt7", DAMAGED + ONE_DAY),
            ("ndt.ndt7", DAMAGED + 2 * ONE_DAY),
        ):
            partition = tables.partition(table, date)
            assert partition is not None, (table, date)
            found.append(partition.version)
        return found

    def _until_quiet(self) -> None:
        """Nothing is due, and nothing runs."""

        def quiet() -> bool:
            store = self.stack.store
            due = store.tables.joins_due(
                "raw_ndt.ndt7", "raw_ndt.annotation2", "ndt.ndt7", newest=NEWEST
            )
            jobs = self.jobs(MISSED).values()
            idle = not self.stack.dagster.runs_in_progress()
            return idle and not due and all(job.state in ENDED for job in jobs)

        until(quiet, "the tables are not made")


@pytest.fixture(scope="module")
def story(
    stack: StackClient, backfills: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    assert backfills["good"] == "COMPLETED_SUCCESS"
    with instance_at(stack.settings.home / "dagster") as instance:
        teller = Teller(stack, instance, tmp_path_factory.mktemp("days"))
        teller.ui.turn("late_archives", on=False)
        teller.miss_three_days()
        teller.catch_up()
        teller.re_execute()
        teller.reload_cancel_and_pass()
        teller.annotations_come_late()
        yield teller.story


def test_days_that_were_missed_are_asked_for_in_one_run(story: Story) -> None:
    [run] = story.caught_up
    assert run.tags["dagster/asset_partition_range_start"] == MISSED[0].isoformat()
    assert run.tags["dagster/asset_partition_range_end"] == MISSED[-1].isoformat()
    assert len(story.failed) == 2 * 3
    assert all(job.daily and job.generation == 1 for job in story.failed.values())


def test_a_date_that_fails_keeps_no_other(story: Story) -> None:
    failed = [key for key, job in story.failed.items() if job.parsed is None]
    assert [(key.datatype, key.date) for key in failed] == [("ndt7", DAMAGED)]
    assert story.failed[failed[0]].state is JobState.FAILED


def test_a_re_execution_asks_only_for_what_failed(story: Story, stack: StackClient) -> None:
    assert story.re_executed is not None
    assert story.re_executed.status is DagsterRunStatus.SUCCESS
    for key, job in story.after_re_execution.items():
        again = (key.datatype, key.date) == ("ndt7", DAMAGED)
        assert job.generation == (2 if again else 1), key
        assert job.parsed, key
    assert stack.value("raw_ndt.ndt7", DAMAGED) == stack.expected["ndt7", DAMAGED].raw_rows


def test_d23_a_reload_of_the_tables_needs_no_parser(story: Story, stack: StackClient) -> None:
    assert story.reload is not None
    assert story.reload.returncode == 0, story.reload.stdout
    *plan, first, day, last = story.reload.stdout.splitlines()
    assert RELOADED.isoformat() in "\n".join(plan)
    assert "/runs/b/" in first
    assert day.split()[:3] == ["ndt/ndt7", RELOADED.isoformat(), "complete"]
    assert last.endswith("COMPLETED_SUCCESS")
    raw, joined = story.reloaded_before
    assert story.reloaded_after == (raw + 1, joined + 1)
    job = stack.store.latest(job_key(stack.config.source("ndt/ndt7"), RELOADED))
    assert job is not None
    assert (job.state, job.generation, job.attempt, job.error) == (JobState.COMPLETE, 1, 1, "")
    assert stack.value("raw_ndt.ndt7", RELOADED) == stack.expected["ndt7", RELOADED].raw_rows


def test_d23_a_cancelled_backfill_withdraws_what_no_parser_holds(story: Story) -> None:
    states = {key.date: job.state for key, job in story.cancelled.items()}
    assert states == {
        CANCELLED[0]: JobState.INIT,
        CANCELLED[1]: JobState.WITHDRAWN,
        CANCELLED[2]: JobState.WITHDRAWN,
    }


def test_the_historical_pass_goes_on_after_restarts_and_then_again(story: Story) -> None:
    parts = [run.tags[HISTORY_TAG] for run in story.history]
    assert len(set(parts)) == len(parts)
    assert [part.split("/")[0] for part in parts[:3]] == ["1", "1", "2"]
    dates = [part.split("/")[2].split("..") for part in parts[:3]]
    yesterday = dt.date.fromisoformat(dates[1][0])
    assert dates[0] == [(yesterday - ONE_DAY).isoformat()] * 2
    assert dates[2] == dates[0]
    assert {run.status for run in story.history} == {DagsterRunStatus.SUCCESS}


def test_runs_are_tagged_for_the_queue_by_what_they_do(story: Story) -> None:
    def asked_for(runs: list[dg.DagsterRun]) -> set[str]:
        # As they are now: when the story saw them they may have been on their way into the queue.
        ids = [run.run_id for run in runs]
        found = story.instance.get_runs(RunsFilter(run_ids=ids))
        return {run.tags.get(PARSE_TAG, "") for run in found}

    assert asked_for(story.history) == {"historical"}
    assert asked_for(story.caught_up) == {"daily"}
    assert story.instance.get_runs(RunsFilter(tags={TABLES_TAG: "ndt"}), limit=1)
    assert story.instance.get_runs(RunsFilter(tags={PARSE_TAG: "backfill"}), limit=1)


def test_d16_d21_late_annotations_are_parsed_and_joined_again_once(
    story: Story, stack: StackClient
) -> None:
    raw, joined, joined_after, joined_later = story.versions_before
    expected = [raw + 1, joined + 1, joined_after + 1, joined_later]
    assert story.versions_after == expected, story.runs_between
    job = stack.store.latest(job_key(stack.config.source("ndt/annotation2"), DAMAGED))
    assert job is not None
    want = stack.expected["annotation2", DAMAGED]
    assert (job.generation, job.archives) == (2, want.archives + 1)
    [run] = story.late
    assert run.tags["dagster/run_key"].startswith(f"late/{job.key}/")
    assert stack.value("raw_ndt.annotation2", DAMAGED) == want.raw_rows
    assert stack.value("ndt.ndt7", DAMAGED) == stack.expected["ndt7", DAMAGED].joined_rows
