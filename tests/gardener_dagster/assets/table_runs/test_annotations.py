"""Runs that come to the join of a date while another run makes its annotations."""

import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from job_requests import request_for
from simulated import Parser
from table_dates import JOINED, RAW, TMP, Dates, day, expected, materialized
from waiting import until

from gardener_api.jobs.job import JobState
from gardener_dagster.assets.table_runs import annotations, locking, runner
from gardener_dagster.planning.due_tables import ANNOTATIONS_TIMEOUT, job_key

RUN = "ca000000-0000-4000-8000-000000000000"
TABLE = "raw_ndt.annotation2"
MADE = ["load", "dedup", "copy", "delete"]


@pytest.fixture(autouse=True)
def _polls_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotations, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(locking, "RUN_CHECK_SECONDS", 0.01)


class Other:
    """The run that makes the annotations of the first date."""

    def __init__(self, dates: Dates) -> None:
        self._dates = dates
        self.key = job_key(dates.config.source("ndt/annotation2"), day(1))

        self.id = ""

    @property
    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC)

    def begin(self, *, ago: dt.timedelta = dt.timedelta()) -> None:
        store, entered = self._dates.store, self.now - ago
        store.enqueue([request_for(self.key, requester="r", archives=1)], now=entered)
        [leased] = store.lease(1, now=entered)
        Parser(store).finish(leased)
        store.stage(self.key, JobState.LOADING, run_id="other", detail="", now=entered)
        self.id = leased.id

    def make(self) -> None:
        store = self._dates.store
        store.tables.record_partition(TABLE, day(1), rows=1, run_id="other", now=self.now)
        for state in (JobState.DEDUPLICATING, JobState.COPYING, JobState.DELETING):
            store.stage(self.key, state, run_id="other", detail="", now=self.now)
        store.stage(self.key, JobState.COMPLETE, run_id="other", detail="", now=self.now)

    def fail(self) -> None:
        self._dates.store.fail_stage(self.key, "no", run_id="other", now=self.now)


def meanwhile(
    dates: Dates, act: Callable[[], object], run_id: str | None = None
) -> dg.ExecuteInProcessResult:
    """Run the tables of two dates; when the first waits for its annotations, do something."""

    def wait_and_act() -> None:
        until(lambda: dates.state(1) is JobState.JOINING, "nothing waits")
        act()

    with ThreadPoolExecutor(1) as pool:
        acted = pool.submit(wait_and_act)
        result = dates.run(1, 2, run_id=run_id)
        acted.result()
    return result


def test_a_join_waits_for_the_annotations_that_another_run_makes(dates: Dates) -> None:
    dates.parse(1, 2)
    other = Other(dates)
    other.begin()
    dates.store.tables.record_partition(TABLE, day(2), rows=1, run_id="first", now=other.now)
    before: list[str] = []

    def make() -> None:
        before.extend(dates.done(1))
        other.make()

    result = meanwhile(dates, make)
    assert materialized(result) == expected(1, 2)
    assert before == MADE
    assert dates.done(1) == [*MADE, "join"]
    joined = dates.store.tables.partition("ndt.ndt7", day(1))
    assert joined is not None
    assert joined.inputs is not None
    assert joined.inputs.annotations == 1


@pytest.mark.parametrize("waits", [True, False])
def test_a_join_whose_annotations_do_not_come_is_left_to_the_sensor(
    dates: Dates, waits: bool
) -> None:
    dates.parse(1, 2)
    other = Other(dates)
    if waits:
        other.begin()
        result = meanwhile(dates, other.fail)
    else:
        other.begin(ago=ANNOTATIONS_TIMEOUT)  # it stands still
        result = dates.run(1, 2)
    assert result.success
    assert ("ndt/ndt7", "2024-03-01") not in materialized(result)
    assert (dates.state(1), dates.done(1)) == (JobState.JOINING, MADE)
    logged = [event.message for event in dates.instance.all_logs(result.run_id)]
    assert any(f"not joined yet, its annotations are not made: {other.id}" in m for m in logged)


def test_a_join_of_annotations_that_change_too_slowly_is_made_of_those_there_are(
    dates: Dates,
) -> None:
    dates.parse(1)
    other = Other(dates)
    other.begin(ago=ANNOTATIONS_TIMEOUT)
    dates.store.tables.record_partition(TABLE, day(1), rows=1, run_id="first", now=other.now)
    assert materialized(dates.run(1, 1)) == expected(1)


def test_a_run_that_makes_the_join_only_does_not_leave_it(dates: Dates) -> None:
    dates.parse(1)
    other = Other(dates)
    other.begin(ago=ANNOTATIONS_TIMEOUT)
    dates.run(1, 1, TMP, RAW)
    del dates.tables.rows["raw_ndt.annotation2$20240301"]
    result = dates.run(1, 1, JOINED)
    assert not result.success
    assert dates.state(1) is JobState.FAILED


def test_a_cancelled_run_does_not_wait_for_annotations(dates: Dates) -> None:
    dates.parse(1, 2)
    Other(dates).begin()

    def cancel() -> None:
        run = dates.instance.get_run_by_id(RUN)
        assert run is not None
        dates.instance.report_run_canceling(run)

    meanwhile(dates, cancel, RUN)
    run = dates.instance.get_run_by_id(RUN)
    assert run is not None
    assert run.status is DagsterRunStatus.CANCELED
    assert (dates.state(1), dates.error(1)) == (JobState.FAILED, runner.CANCELLED)
    assert dates.done(1) == MADE
