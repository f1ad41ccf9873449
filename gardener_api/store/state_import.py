"""Keeping the jobs of the old gardener's saved state in the store."""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select
from sqlalchemy.engine import Engine

from gardener_api.jobs import parser_calls
from gardener_api.jobs.job import Change, Job, JobState
from gardener_api.jobs.parser_calls import LeasePolicy
from gardener_api.jobs.saved_state import SavedJob
from gardener_api.store import schema
from gardener_api.store.engine import writing
from gardener_api.store.rows import chunks, insert_jobs, save_jobs

REQUESTER = "import/old-gardener"
"""Requester of the imported jobs: a queued job without a requester is withdrawn."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The result of importing a saved job.

    Attributes:
        saved: Its state as the old gardener names it.
        job: The job as inserted; if it is not new, as it was saved by the old gardener.
        is_new: Whether the import inserted it; else the store already had a job of its key.
    """

    saved: str
    job: Job
    is_new: bool


def import_jobs(
    engine: Engine,
    saved: Sequence[SavedJob],
    *,
    policy: LeasePolicy,
    now: dt.datetime,
    dry_run: bool = False,
) -> list[Imported]:
    """Insert saved jobs in one transaction, except those whose keys the store already has.

    Args:
        engine: Of the store.
        saved: The jobs.
        policy: The lease and the maximum number of attempts.
        now: The time.
        dry_run: Change nothing.

    Returns:
        The result for each job; with ``dry_run``, what it would be.
    """
    with writing(engine).connect() as connection, connection.begin() as transaction:
        known = _known(connection, [str(item.job.key) for item in saved])
        new = [item for item in saved if str(item.job.key) not in known]
        made = _insert(connection, new, policy=policy, now=now)
        if dry_run:
            transaction.rollback()
    return [
        Imported(
            saved=item.saved,
            job=made.get(str(item.job.key), item.job),
            is_new=str(item.job.key) not in known,
        )
        for item in saved
    ]


def _known(connection: Connection, keys: Sequence[str]) -> set[str]:
    known: set[str] = set()
    for chunk in chunks(keys):
        query = select(schema.jobs.c.key).where(schema.jobs.c.key.in_(chunk))
        known.update(connection.execute(query).scalars())
    return known


def _insert(
    connection: Connection, new: Sequence[SavedJob], *, policy: LeasePolicy, now: dt.datetime
) -> dict[str, Job]:
    by_key = {str(item.job.key): item for item in new}
    history = {item.job.key: item.history for item in new}
    made = insert_jobs(connection, [item.job for item in new], now, history)
    jobs = {str(change.job.key): change.job for change in made}
    rows = [_request(job, now) for job in jobs.values()]
    if rows:
        connection.execute(insert(schema.requests), rows)
    ended = list(_given_up(by_key, jobs.values(), policy=policy, now=now))
    save_jobs(connection, ended)
    return jobs | {str(change.job.key): change.job for change in ended}


def _given_up(
    by_key: dict[str, SavedJob], jobs: Iterable[Job], *, policy: LeasePolicy, now: dt.datetime
) -> Iterable[Change]:
    """End attempts that have a parse error: the old gardener did not retry or fail such jobs."""
    for job in jobs:
        reason = by_key[str(job.key)].parse_error
        if reason is not None and job.state is JobState.PARSING:
            outcome = parser_calls.apply_report(
                job, parser_calls.Error(job.id, reason), policy=policy, now=now
            )
            assert isinstance(outcome, Change)  # noqa: S101 - what an error of a parsing job gives
            yield outcome


def _request(job: Job, now: dt.datetime) -> dict[str, object]:
    return {
        "job": job.number,
        "requester": REQUESTER,
        "run_id": "",
        "backfill_id": None,
        "covers_tables": False,
        "asked": now,
        "reported": now,  # no run waits for it
        "withdrawn": None,
        "withdrawn_by": "",
    }
