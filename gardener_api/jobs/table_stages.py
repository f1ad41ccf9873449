"""Table stages: how a run of the tables changes a job.

Pure functions, the counterpart of ``parser_calls``. ``store`` saves the outcomes.
"""

import datetime as dt
from dataclasses import dataclass, replace

from gardener_api.jobs.job import (
    TABLE_STATES,
    Change,
    Job,
    JobState,
    TransitionError,
    clean_text,
    event,
    move,
)

ACCEPTED = "accepted"
"""An event, not a state: a person accepted the rows that were held."""
REJECTED = "rejected"
"""An event, not a state: a person rejected the rows that were held."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChainRule:
    """When to report a parsed job to a whole-chain backfill: once one of these is true."""

    ended_before: dt.datetime  # its tables ended before this time
    parsed_before: dt.datetime  # it was parsed before this time


def enter_stage(
    job: Job, state: JobState, *, run_id: str, detail: str, now: dt.datetime
) -> Change | None:
    """Move a job to a stage of its tables, or to complete.

    Returns:
        The change; ``None`` if the run does not work on this job's parse: the job is not parsed,
        its load has not started, or its rows are not in raw yet and another run joins the older
        rows.

    Raises:
        TransitionError: ``state`` is not a table stage, or cannot follow the job's state.
    """
    if state not in TABLE_STATES | {JobState.COMPLETE}:
        raise TransitionError(f"job {job.id}: {state} is no stage of its tables")
    if job.parsed is None:
        return None
    if job.state is JobState.POST_PROCESSING and state is not JobState.LOADING:
        return None
    is_join = state in (JobState.JOINING, JobState.COMPLETE)
    if is_join and job.run_id != run_id and not _takes_a_join(job, state):
        return None
    if job.state is state:
        if job.run_id == run_id:
            return Change(job=replace(job, detail=clean_text(detail)))
        again = replace(job, run_id=run_id, detail=clean_text(detail), entered=now)
        return Change(job=again, events=(event(again, state, now=now, left=job),))
    error = "" if state is JobState.COMPLETE else job.error
    return move(job, state, now=now, detail=detail, run_id=run_id, error=error, failed_in=None)


def _takes_a_join(job: Job, state: JobState) -> bool:
    """Return whether a join by another run reads this job's rows, because they are in raw."""
    if job.state is JobState.FAILED:  # a join started before the failure does not end it
        return state is JobState.JOINING and job.failed_in in (JobState.DELETING, JobState.JOINING)
    return job.state in (JobState.JOINING, JobState.COMPLETE)


def fail_stage(
    job: Job, error: str, *, run_id: str, number: int | None, now: dt.datetime
) -> Change | None:
    """Fail a job in its current stage.

    Args:
        job: The job.
        error: The error message.
        run_id: The Dagster run that failed.
        number: Number of the job that the run was started for, if known. Only with it can a run
            fail a job whose tables it never started.
        now: The time.

    Returns:
        The change; ``None`` if this run has nothing to fail: the job is not parsed or has ended,
        or another run makes its tables.
    """
    begun = job.state in TABLE_STATES and job.run_id == run_id
    never_begun = job.state is JobState.POST_PROCESSING and job.number == number
    if not begun and not never_begun:
        return None
    change = move(
        job,
        JobState.FAILED,
        now=now,
        detail=job.detail,
        error=clean_text(error),
        failed_in=job.state,
        run_id=run_id,
    )
    (failed,) = change.events
    return Change(job=change.job, events=(replace(failed, detail=change.job.error),))


def decide(job: Job, decision: str, *, detail: str, error: str = "", now: dt.datetime) -> Change:
    """Record a person's decision about a job's held tables; the job's state stays.

    Args:
        job: The job.
        decision: ``ACCEPTED`` or ``REJECTED``: an event, not a state.
        detail: Who decided, and why.
        error: Replaces the error of a job that failed in its tables; "" keeps it.
        now: The time.
    """
    if error and job.failed_in in TABLE_STATES:
        job = replace(job, error=clean_text(error))
    decided = replace(event(job, decision, now=now, left=None), detail=clean_text(detail))
    return Change(job=job, events=(decided,))
