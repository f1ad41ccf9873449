"""Whose requests a run makes, and which are taken back after a person cancelled a run."""

import datetime as dt
from collections.abc import Iterable

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster import DagsterRunStatus as Status
from job_requests import wanted

from gardener_api.jobs.job import JobState
from gardener_api.store.store import JobStore
from gardener_dagster.assets.requesters import (
    CancelledRun,
    cancelled_runs,
    find_requester,
    withdraw_cancelled,
)

NOW = dt.datetime(2024, 3, 5, tzinfo=dt.UTC)
DAY = dt.date(2024, 3, 1)


def run(
    run_id: str,
    status: DagsterRunStatus = Status.FAILURE,
    *,
    of: str = "",
    root: str = "",
    continues: bool = True,
    backfill: str = "",
) -> dg.DagsterRun:
    """A run; ``of`` another one it is its retry, or if it does not continue it a re-execution."""
    tags = {"dagster/backfill": backfill} if backfill else {}
    if of:
        tags |= {"dagster/parent_run_id": of, "dagster/root_run_id": root or of}
        tags |= {"dagster/retry_number": "1"} if continues else {}
    return dg.DagsterRun(job_name="__ASSET_JOB", run_id=run_id, status=status, tags=tags)


def requester(found: dg.DagsterRun, others: Iterable[dg.DagsterRun] = ()) -> str:
    return find_requester(found, {other.run_id: other for other in others}.get)


class TestRequester:
    def test_runs_of_one_backfill_are_one(self) -> None:
        assert requester(run("r1", backfill="b")) == "backfill/b"
        assert requester(run("r1")) == "run/r1"

    def test_d26_a_retry_asks_for_the_run_that_it_repeats(self) -> None:
        first, second = run("r1"), run("r2", of="r1")
        assert requester(second, [first]) == "run/r1"
        assert requester(run("r3", of="r2", root="r1"), [first, second]) == "run/r1"

    def test_a_person_who_re_executes_all_of_a_run_asks_anew(self) -> None:
        assert requester(run("r2", of="r1", continues=False), [run("r1")]) == "run/r2"

    def test_d26_the_retry_of_one_that_asked_anew_does_not_take_what_was_there_before(self) -> None:
        """Its root is the run that was done; what it asked for is newer."""
        anew = run("r2", of="r1", continues=False)
        assert requester(run("r3", of="r2", root="r1"), [run("r1"), anew]) == "run/r2"

    def test_a_backfills_run_is_its_own_though_dagster_takes_the_tag_off_when_that_has_ended(
        self,
    ) -> None:
        assert requester(run("r2", of="r1"), [run("r1", backfill="b")]) == "backfill/b"

    def test_the_run_that_it_repeats_was_deleted(self) -> None:
        assert requester(run("r2", of="r1")) == "run/r1"


class TestCancelledRuns:
    def test_only_those_that_a_person_cancelled(self) -> None:
        runs = [run("failed"), run("cancelled", Status.CANCELED), run("other", Status.CANCELED)]
        assert cancelled_runs({"failed", "cancelled", "unknown"}, runs) == [
            CancelledRun(run_id="cancelled", cancelled="cancelled")
        ]

    def test_a_retry_that_was_cancelled_before_it_asked_for_anything(self) -> None:
        runs = [run("r1"), run("r1"), run("r2", Status.CANCELED, of="r1")]
        assert cancelled_runs({"r1"}, runs) == [CancelledRun(run_id="r1", cancelled="r2")]

    @pytest.mark.parametrize("status", [Status.NOT_STARTED, Status.STARTED, Status.SUCCESS])
    def test_not_while_a_later_retry_goes_on(self, status: DagsterRunStatus) -> None:
        runs = [run("r1"), run("r2", Status.CANCELED, of="r1"), run("r3", status, of="r2")]
        assert cancelled_runs({"r1"}, runs) == []

    def test_a_re_execution_of_all_is_another_matter(self) -> None:
        runs = [run("r1"), run("r2", Status.CANCELED, of="r1", continues=False)]
        assert cancelled_runs({"r1"}, runs) == []


class TestWithdrawCancelled:
    def ask(self, store: JobStore, *runs: dg.DagsterRun) -> None:
        asks = [
            wanted(DAY + n * dt.timedelta(days=1), requester=f"run/{r.run_id}", run_id=r.run_id)
            for n, r in enumerate(runs)
        ]
        store.enqueue(asks, now=NOW)

    def test_d26_what_a_run_left_that_was_terminated_by_force_with_a_dead_process(
        self, store: JobStore, instance: dg.DagsterInstance
    ) -> None:
        cancelled = instance.add_run(run(dg_id(1), Status.CANCELED))
        failed = instance.add_run(run(dg_id(2), Status.FAILURE))
        waiting = instance.add_run(run(dg_id(3), Status.STARTED))
        self.ask(store, cancelled, failed, waiting)
        [job] = withdraw_cancelled(instance, store, now=NOW)
        assert (job.key.date, job.state) == (DAY, JobState.WITHDRAWN)
        assert job.detail == f"withdrawn by a person, who cancelled Dagster run {dg_id(1)}"
        assert withdraw_cancelled(instance, store, now=NOW) == []
        assert store.counts() == {JobState.WITHDRAWN: 1, JobState.QUEUED: 2}

    def test_d26_what_a_parser_holds_is_not_queued_again_after_it(
        self, store: JobStore, instance: dg.DagsterInstance
    ) -> None:
        self.ask(store, instance.add_run(run(dg_id(1), Status.CANCELED)))
        store.lease(1, now=NOW)
        assert withdraw_cancelled(instance, store, now=NOW) == []
        store.expire(now=NOW + dt.timedelta(days=1))
        assert store.counts() == {JobState.WITHDRAWN: 1}

    def test_d26_a_retry_that_was_cancelled_in_the_queue(
        self, store: JobStore, instance: dg.DagsterInstance
    ) -> None:
        failed = instance.add_run(run(dg_id(1)))
        instance.add_run(run(dg_id(2), Status.CANCELED, of=dg_id(1)))
        self.ask(store, failed)
        [job] = withdraw_cancelled(instance, store, now=NOW)
        assert dg_id(2) in job.detail

    def test_with_nothing_asked_for_dagster_is_not_asked(
        self, store: JobStore, instance: dg.DagsterInstance
    ) -> None:
        instance.add_run(run(dg_id(1), Status.CANCELED))
        assert withdraw_cancelled(instance, store, now=NOW) == []


def dg_id(number: int) -> str:
    """A run ID as Dagster makes them."""
    return f"00000000-0000-4000-8000-{number:012}"
