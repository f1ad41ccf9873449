"""Whose requests for jobs a Dagster run makes, and which are taken back after a cancellation.

A run that was interrupted (its pod was evicted, its machine stopped) is not cancelled: what it
asked for stays queued, and Dagster's retry of the run attaches to it. Only a person takes back:
Dagster then says that the run is being cancelled, or is.
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
    """Name in whose name a run asks: all runs that share a parse of a date have one name.

    A run that Dagster retries, or that a person re-executes from its failure, has the name of the
    run that it repeats, which may have the name of an earlier one. One that a person
    re-executes as a whole asks anew.

    Args:
        run: The run that asks.
        get_run: Finds a run by its ID; ``None`` if it was deleted.
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
    """Refuse to work for a backfill that a person cancelled; take back what was asked for.

    A run that is lost while its backfill is being cancelled is retried by Dagster all the same, and
    the retry is no run of the backfill any more: nobody would ever cancel it.

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
    """What the store keeps as ``withdrawn_by`` of the requests of a run that a person cancelled."""
    return f"{BY_PERSON}, who cancelled Dagster run {run_id}"


@dataclass(frozen=True, kw_only=True)
class CancelledRun:
    """Requests to take back: those of ``run_id``, since ``cancelled`` was cancelled.

    The two differ where a person cancelled the retry of a run before it asked for anything.
    """

    run_id: str
    cancelled: str


def cancelled_runs(waiting: Collection[str], runs: Iterable[dg.DagsterRun]) -> list[CancelledRun]:
    """The runs that ended cancelled and left requests behind.

    Args:
        waiting: The runs that the job store has open requests of.
        runs: These runs, as far as they ended badly, and the runs that continue them, newest last.
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
    """Take back what runs had asked for that ended cancelled without doing so themselves.

    A run whose process died, or never ran, cannot. Called in each tick of a sensor.

    Returns:
        The jobs that became withdrawn.
    """
    waiting = store.runs_waiting()
    withdrawn: list[Job] = []
    for found in cancelled_runs(waiting, _ended_badly(instance, waiting)):
        withdrawn += store.withdraw(found.run_id, by=cancelled_by(found.cancelled), now=now)
    return withdrawn


def _ended_badly(instance: dg.DagsterInstance, run_ids: Collection[str]) -> Sequence[dg.DagsterRun]:
    """These runs, as far as they failed or were cancelled, and all that continue them."""
    if not run_ids:
        return ()  # an empty list would find all runs
    statuses = [DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
    ended = instance.get_runs(RunsFilter(run_ids=sorted(run_ids), statuses=statuses))
    roots = {
        run.tags.get(ROOT_RUN_TAG, run.run_id)
        for run in ended
        if run.status is DagsterRunStatus.FAILURE
    }
    if not roots:
        return ended
    # Dagster gives the newest first, and a retry is newer than what it retries.
    group = instance.get_runs(RunsFilter(tags={ROOT_RUN_TAG: sorted(roots)}))
    return [*ended, *reversed(group)]
