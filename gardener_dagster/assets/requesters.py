"""Whose requests for jobs a Dagster run makes, and which are taken back after a cancellation.

A run that was interrupted (its pod was evicted, its machine stopped) is not cancelled: its jobs
stay queued, and Dagster's retry of the run waits for them. Requests are withdrawn only if a person
cancelled the run: its status is then CANCELING or CANCELED.
"""

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from gardener_api.jobs.job import BY_PERSON, Job
from gardener_api.store.store import JobStore
from gardener_dagster.assets.keys import (
    BACKFILL_TAG,
    PARENT_RUN_TAG,
    RETRY_TAG,
    ROOT_RUN_TAG,
    requester_of,
    resumes,
)

CANCELLED = frozenset({DagsterRunStatus.CANCELING, DagsterRunStatus.CANCELED})
_CANCELLED_BACKFILL = ("CANCELING", "CANCELED")


def find_requester(run: dg.DagsterRun, get_run: Callable[[str], dg.DagsterRun | None]) -> str:
    """Return the requester of a run: the same for all runs that share a parse of a date.

    A retry by Dagster or a re-execution from failure has the requester of its parent run, which
    may be a retry, too. A run that a person re-executes as a whole is a new requester.

    Args:
        run: The run.
        get_run: Finds a run by its ID; returns ``None`` if it was deleted.
    """
    while repeats := run.tags.get(PARENT_RUN_TAG):
        if not resumes(run.tags):
            return f"run/{run.run_id}"
        parent = get_run(repeats)
        if parent is None:
            return requester_of(repeats, {})
        run = parent
    return requester_of(run.run_id, run.tags)


def refuse_cancelled(instance: dg.DagsterInstance, run: dg.DagsterRun, store: JobStore) -> None:
    """Fail a retry that works for a cancelled backfill; withdraw its parent run's requests.

    Dagster retries a run that is lost even while its backfill is being cancelled. The retry does
    not belong to the backfill, so nothing would ever cancel it.

    Raises:
        dg.Failure: The run is such a retry.
    """
    if RETRY_TAG not in run.tags or BACKFILL_TAG in run.tags:
        return
    kind, _, backfill_id = find_requester(run, instance.get_run_by_id).partition("/")
    backfill = instance.get_backfill(backfill_id) if kind == "backfill" else None
    if backfill is None or backfill.status.value not in _CANCELLED_BACKFILL:
        return
    by = f"{BY_PERSON}, who cancelled backfill {backfill_id}"
    store.withdraw(run.tags[PARENT_RUN_TAG], by=by, now=dt.datetime.now(dt.UTC))
    raise dg.Failure(
        f"backfill {backfill_id}, which this run works for, was cancelled. What to do:"
        " nothing, or ask for its dates again (`gardener backfill --missing`)",
        allow_retries=False,
    )


def cancelled_by(run_id: str) -> str:
    """Return the ``withdrawn_by`` of requests withdrawn because a person cancelled a run."""
    return f"{BY_PERSON}, who cancelled Dagster run {run_id}"


@dataclass(frozen=True, kw_only=True)
class CancelledRun:
    """Requests to withdraw: those of run ``run_id``, because run ``cancelled`` was cancelled.

    The two differ if a person cancelled the retry of a run before the retry requested anything.
    """

    run_id: str
    cancelled: str


def cancelled_runs(waiting: Collection[str], runs: Iterable[dg.DagsterRun]) -> list[CancelledRun]:
    """Return the cancelled runs that left active requests.

    Args:
        waiting: IDs of the runs with active requests in the job store.
        runs: Those of them that failed or were cancelled, then the runs that continue them, newest
            last.
    """
    newest: dict[str, dg.DagsterRun] = {}
    for run in runs:
        goes_on_for = run.tags.get(PARENT_RUN_TAG) if resumes(run.tags) else None
        newest[run.run_id] = run
        for known, latest in list(newest.items()):
            if latest.run_id == goes_on_for:
                newest[known] = run
    return [
        CancelledRun(run_id=run_id, cancelled=newest[run_id].run_id)
        for run_id in sorted(waiting)
        if run_id in newest and newest[run_id].status is DagsterRunStatus.CANCELED
    ]


def withdraw_cancelled(
    instance: dg.DagsterInstance, store: JobStore, *, now: dt.datetime
) -> list[Job]:
    """Withdraw the requests of cancelled runs that did not withdraw them themselves.

    A run whose process died or never started cannot do so. A sensor calls this in each tick.

    Returns:
        The withdrawn jobs.
    """
    waiting = store.runs_waiting()
    withdrawn: list[Job] = []
    for found in cancelled_runs(waiting, _ended_badly(instance, waiting)):
        withdrawn += store.withdraw(found.run_id, by=cancelled_by(found.cancelled), now=now)
    return withdrawn


def _ended_badly(instance: dg.DagsterInstance, run_ids: Collection[str]) -> Sequence[dg.DagsterRun]:
    """Return the failed and cancelled runs, then all re-executions of the failed runs' roots."""
    if not run_ids:
        return ()  # an empty filter would match all runs
    statuses = [DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
    ended = instance.get_runs(RunsFilter(run_ids=sorted(run_ids), statuses=statuses))
    roots = {
        run.tags.get(ROOT_RUN_TAG, run.run_id)
        for run in ended
        if run.status is DagsterRunStatus.FAILURE
    }
    if not roots:
        return ended
    # Dagster returns the newest first, and a retry is newer than the run that it retries.
    group = instance.get_runs(RunsFilter(tags={ROOT_RUN_TAG: sorted(roots)}))
    return [*ended, *reversed(group)]
