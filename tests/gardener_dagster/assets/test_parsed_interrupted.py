"""Runs of the step ``parse`` that end before their dates do: cancelled, interrupted, taken over."""

import dagster as dg
import pytest
from dagster import DagsterExecutionInterruptedError, DagsterRunStatus, RunsFilter
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from job_requests import request_for
from parse_runs import (
    DAYS,
    NDT7,
    NOW,
    At,
    failure_of,
    materialized,
    retry,
    run_parse,
    states,
)
from simulated import Parser

from gardener_api.jobs.job import JobState
from gardener_api.store.store import JobStore
from gardener_dagster.assets.keys import BACKFILL_TAG


def the_run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    [run] = instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.STARTED]))
    return run


@pytest.mark.usefixtures("archives")
@pytest.mark.parametrize("status", [DagsterRunStatus.CANCELING, DagsterRunStatus.CANCELED])
def test_a_run_that_a_person_cancelled_withdraws_even_if_nobody_interrupts_it(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    store: JobStore,
    when_polling: At,
    status: DagsterRunStatus,
) -> None:
    """Who cancels it does so in Dagster's storage alone; no parser asks for its jobs."""

    def cancel() -> None:
        run = the_run(instance)
        instance.report_run_canceling(run)
        if status is DagsterRunStatus.CANCELED:
            instance.report_run_canceled(run)

    when_polling(cancel)
    result = run_parse(defs, instance, [NDT7], DAYS[0], DAYS[1])
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.status is DagsterRunStatus.CANCELED
    assert states(store) == [JobState.WITHDRAWN] * 2
    [request] = store.requests(store.jobs(limit=1)[0].number)
    assert request.withdrawn_by == f"a person, who cancelled Dagster run {run.run_id}"


@pytest.mark.usefixtures("archives")
@pytest.mark.parametrize(
    "cause", [DagsterExecutionInterruptedError(), RuntimeError("out of memory")], ids=repr
)
def test_d26_what_an_interrupted_run_asked_for_stays_queued_and_its_retry_waits_for_it(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    store: JobStore,
    parser: Parser,
    when_polling: At,
    cause: BaseException,
) -> None:
    """A SIGTERM is that error in the step; Dagster says CANCELING only if a person cancels."""

    def interrupt() -> None:
        raise cause

    when_polling(interrupt)
    result = run_parse(defs, instance, [NDT7], DAYS[0], DAYS[-1])
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.status is DagsterRunStatus.FAILURE
    assert states(store) == [JobState.QUEUED] * 3
    asked = store.jobs(limit=10)
    with parser:
        assert retry(defs, instance, run).success
    assert {job.number for job in store.jobs(limit=10)} == {job.number for job in asked}
    assert materialized(instance, NDT7) == {day.isoformat() for day in DAYS}


@pytest.mark.usefixtures("archives")
@pytest.mark.parametrize("status", [BulkActionStatus.CANCELING, BulkActionStatus.CANCELED])
def test_a_retry_asks_for_nothing_that_a_cancelled_backfill_asked_for(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    store: JobStore,
    when_polling: At,
    status: BulkActionStatus,
) -> None:
    """Dagster retries a run that was lost while its backfill was being cancelled."""
    lost = lost_run(defs, instance, when_polling, status)
    result = retry(defs, instance, lost)
    assert not result.success
    assert failure_of(result).startswith("dagster._core.definitions.events.Failure: backfill b")
    assert states(store) == [JobState.WITHDRAWN] * 3
    [request] = store.requests(store.jobs(limit=1)[0].number)
    assert request.withdrawn_by == "a person, who cancelled backfill b"


@pytest.mark.usefixtures("archives")
def test_a_retry_goes_on_for_a_backfill_that_was_not_cancelled(
    defs: dg.Definitions, instance: dg.DagsterInstance, when_polling: At, parser: Parser
) -> None:
    lost = lost_run(defs, instance, when_polling, BulkActionStatus.COMPLETED_FAILED)
    with parser:
        assert retry(defs, instance, lost).success


def lost_run(
    defs: dg.Definitions, instance: dg.DagsterInstance, when_polling: At, status: BulkActionStatus
) -> dg.DagsterRun:
    """A run of a backfill in that state, which was lost after it had asked for its dates."""

    def die() -> None:
        raise RuntimeError("out of memory")

    when_polling(die)
    run_id = run_parse(defs, instance, [NDT7], DAYS[0], DAYS[-1]).run_id
    instance.add_backfill(
        PartitionBackfill(
            backfill_id="b", status=status, from_failure=False, tags={}, backfill_timestamp=0.0
        )
    )
    instance.add_run_tags(run_id, {BACKFILL_TAG: "b"})
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run


@pytest.mark.usefixtures("archives")
def test_d25_a_request_that_is_taken_back_from_outside_is_a_failure_that_names_who_did_it(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    store: JobStore,
    parser: Parser,
    when_polling: At,
) -> None:
    when_polling(
        lambda: store.withdraw(the_run(instance).run_id, by="an operator's script", now=NOW)
    )
    with parser:
        result = run_parse(defs, instance, [NDT7], DAYS[0], DAYS[1])
    assert not result.success
    [first, *_] = failure_of(result).splitlines()
    assert "2 jobs failed: archive-mlab/ndt/ndt7/20240301: withdrawn by an operator's" in first


@pytest.mark.usefixtures("archives")
def test_d25_jobs_that_another_run_of_the_backfill_takes_over_are_not_waited_for(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    store: JobStore,
    when_polling: At,
) -> None:
    """A person re-executes a run that is only believed to be dead; both run on."""

    def take_over() -> None:
        [request] = store.requests(store.jobs(limit=1)[0].number)
        keys = [job.key for job in store.jobs(limit=10)]
        asks = [request_for(key, requester=request.requester, run_id="other") for key in keys]
        store.enqueue(asks, now=NOW)

    when_polling(take_over)
    result = run_parse(defs, instance, [NDT7], DAYS[0], DAYS[1])
    assert not result.success
    assert "taken over by Dagster run other, which asked for it after" in failure_of(result)
    assert states(store) == [JobState.QUEUED] * 2, "they are the other run's now"
