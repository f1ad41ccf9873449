"""Runs of the tables that are cancelled or interrupted, or that meet another run at a partition."""

import datetime as dt
import os
import signal
import threading
from collections.abc import Callable

import pytest
from chain import failure, resumed
from dagster import DagsterRunStatus
from table_dates import (
    JOINED,
    Dates,
    day,
    expected,
    failing,
    materialized,
)

from gardener_api.jobs.job import JobState
from gardener_dagster.assets.table_runs import locking, runner
from gardener_dagster.warehouse.names import JobContext

NOW = dt.datetime(2024, 3, 9, tzinfo=dt.UTC)
CANCELLED_RUN = "ca000000-0000-4000-8000-000000000000"
EVICTED_RUN = "e1000000-0000-4000-8000-000000000000"
MakeDates = Callable[..., Dates]


def test_d30_a_step_whose_partition_another_run_took_stops(
    dates: Dates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "LOCK_CHECK_SECONDS", 0.0)
    dates.parse(1, 2)

    def taken(name: str, date: dt.date, context: JobContext) -> None:
        if (name, date) == ("copy", day(1)):
            locks, run_id = dates.store.partition_locks, context.run_id
            locks.take("tmp_ndt.ndt7", date, run_id="other", ended=run_id, now=NOW)

    dates.tables.hook = taken
    result = dates.run(1, 2)
    assert dates.done(1) == ["load", "dedup"]
    assert "raw_ndt.ndt7$20240301" not in dates.tables.rows
    assert "tmp_ndt.ndt7$20240301 is run other's now" in failure(result)
    assert dates.holder("tmp_ndt.ndt7", 1) == "other"
    assert dates.state(2) is JobState.COMPLETE


def test_d30_a_step_whose_run_was_marked_failed_stops(dates: Dates) -> None:
    dates.parse(1, 2, 3)
    run_ids: list[str] = []

    def marked(name: str, date: dt.date, context: JobContext) -> None:
        if (name, date) == ("dedup", day(1)):
            run = dates.instance.get_run_by_id(context.run_id)
            assert run is not None
            run_ids.append(run.run_id)
            dates.instance.report_run_failed(run)

    dates.tables.hook = marked
    dates.run(1, 3)
    assert run_ids
    assert "copy" not in dates.done(1)
    assert "raw_ndt.ndt7$20240301" not in dates.tables.rows


def interrupting(
    dates: Dates, n: int, *, cancel: bool, operation: str = "load"
) -> Callable[..., None]:
    """Has this process told to end as a date comes to an operation, as Dagster or a pod is."""

    def hook(name: str, date: dt.date, context: JobContext) -> None:
        if (name, date) != (operation, day(n)):
            return
        if cancel:
            run = dates.instance.get_run_by_id(context.run_id)
            assert run is not None
            dates.instance.report_run_canceling(run)
        os.kill(os.getpid(), signal.SIGINT)
        watch = context.guard.__self__._watch  # type: ignore[attr-defined]
        assert watch.stopping.wait(30)  # until the run has seen it

    return hook


def test_a_cancelled_run_ends_its_dates_under_way_and_begins_no_other(
    make_dates: MakeDates, monkeypatch: pytest.MonkeyPatch
) -> None:
    dates = make_dates(at_once=1)
    dates.parse(1, 2, 3)
    interrupt = interrupting(dates, 2, cancel=True)

    handled = threading.Event()
    goes_on = runner.TablesRun._stop_in_time

    def look(run: runner.TablesRun) -> None:  # after each message, and all events of it
        if dates.instance.get_materialized_partitions(JOINED):
            handled.set()
        goes_on(run)

    def once_dagster_has_the_first(name: str, date: dt.date, context: JobContext) -> None:
        assert date == day(1) or handled.wait(30)
        interrupt(name, date, context)

    monkeypatch.setattr(runner.TablesRun, "_stop_in_time", look)
    dates.tables.hook = once_dagster_has_the_first
    dates.run(1, 3, run_id=CANCELLED_RUN)
    run = dates.instance.get_run_by_id(CANCELLED_RUN)
    assert run is not None
    assert run.status is DagsterRunStatus.CANCELED
    assert [dates.state(n) for n in (1, 2)] == [JobState.COMPLETE] * 2
    assert (dates.state(3), dates.error(3)) == (JobState.FAILED, runner.CANCELLED)
    assert dates.done(3) == []
    dates.tables.hook = failing()
    again = dates.run(1, 3, tags=resumed(CANCELLED_RUN))
    assert materialized(again) >= expected(3)
    assert dates.done(2) == ["load", "dedup", "copy", "delete", "join"]
    assert dates.state(3) is JobState.COMPLETE


def test_a_cancelled_run_does_not_wait_long_for_the_dates_under_way(
    dates: Dates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "CANCEL_GRACE_SECONDS", 0.1)
    monkeypatch.setattr(runner, "POLL_SECONDS", 0.05)
    dates.parse(1)
    interrupt = interrupting(dates, 1, cancel=True)

    def hook(name: str, date: dt.date, context: JobContext) -> None:
        interrupt(name, date, context)
        while name == "copy":  # as the engine waits for a long BigQuery job
            threading.Event().wait(0.01)
            context.guard()

    dates.tables.hook = hook
    dates.run(1, 1, run_id=CANCELLED_RUN)
    assert (dates.state(1), dates.error(1)) == (JobState.FAILED, runner.CANCELLED)
    assert dates.holder("tmp_ndt.ndt7", 1) is None


def test_d26_a_run_told_to_end_by_anything_but_a_person_leaves_its_jobs_to_its_retry(
    make_dates: MakeDates,
) -> None:
    dates = make_dates(at_once=1)
    dates.parse(1, 2, 3)
    dates.tables.hook = interrupting(dates, 2, cancel=False)
    dates.run(1, 3, run_id=EVICTED_RUN)
    run = dates.instance.get_run_by_id(EVICTED_RUN)
    assert run is not None
    assert run.status is DagsterRunStatus.FAILURE
    assert [dates.state(n) for n in (1, 2, 3)] == [
        *(JobState.COMPLETE, JobState.LOADING, JobState.POST_PROCESSING)
    ]
    assert dates.done(2) == []
    dates.tables.hook = failing()
    dates.run(1, 3, tags={"dagster/root_run_id": EVICTED_RUN, "dagster/retry_number": "1"})
    assert [dates.state(n) for n in (1, 2, 3)] == [JobState.COMPLETE] * 3
    assert dates.done(1) == ["load", "dedup", "copy", "delete", "join"]


def test_the_second_run_of_a_date_waits_until_the_first_is_done_with_it(dates: Dates) -> None:
    dates.parse(1, 2)
    run = dates.instance.create_run_for_job(dates._job, status=DagsterRunStatus.STARTED)
    dates.store.partition_locks.take("tmp_ndt.ndt7", day(1), run_id=run.run_id, now=NOW)
    waits: list[str] = []

    def hook(name: str, date: dt.date, context: JobContext) -> None:
        if (name, date) == ("join", day(2)):  # the other date did not wait
            waits.extend(dates.done(1))
            dates.store.partition_locks.release("tmp_ndt.ndt7", day(1), run_id=run.run_id)

    dates.tables.hook = hook
    result = dates.run(1, 2)
    assert result.success
    assert waits == []
    assert dates.done(1) == ["load", "dedup", "copy", "delete", "join"]
    logged = [
        e.message
        for e in dates.instance.all_logs(result.run_id)
        if f"run {run.run_id} works on tmp_ndt.ndt7$20240301 since 2024-03-09" in e.message
    ]
    assert len(logged) == 1


def test_what_a_dead_run_left_in_bigquery_is_cancelled_first(dates: Dates) -> None:
    dates.parse(1)
    dead = dates.instance.create_run_for_job(dates._job, status=DagsterRunStatus.FAILURE)
    dates.store.partition_locks.take("tmp_ndt.ndt7", day(1), run_id=dead.run_id, now=NOW)
    begun: list[list[str]] = []
    dates.tables.hook = lambda name, date, context: begun.append([*dates.tables.taken_from])
    assert dates.run(1, 1).success
    assert begun[0] == dates.tables.taken_from == [dead.run_id]
