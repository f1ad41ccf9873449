"""SQL statements on requests: insert, withdraw, and mark as reported.

Each runs in the caller's transaction. ``store`` calls them; the queries of pages and runs are in
``queries``.
"""

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Insert, bindparam, select, update
from sqlalchemy.engine import Engine

from gardener_api.jobs import job as moves
from gardener_api.jobs.job import Change, Job, JobKey, JobRequest, ParseReport, clean_text
from gardener_api.store import schema
from gardener_api.store.engine import upsert
from gardener_api.store.rows import chunks

_ENQUEUED_AT_ONCE = 200
_r = schema.requests.c
_j = schema.jobs.c
_CONFIRM_REQUEST = (
    update(schema.requests)
    .where(
        _r.job == bindparam("of"),
        _r.requester == bindparam("who"),
        _r.asked == bindparam("asked_at"),
        _r.reported.is_(None),
    )
    .values(reported=bindparam("now"))
)


def insert_requests(engine: Engine) -> Insert:
    """Build the upsert of requests; a repeated request is reset to a new one."""
    changed = ["run_id", "backfill_id", "covers_tables", "asked", "reported"]
    return upsert(engine, schema.requests, [*changed, "withdrawn", "withdrawn_by"])


def request_rows(
    wanted: Sequence[JobRequest], jobs: Mapping[JobKey, Job], now: dt.datetime
) -> list[dict[str, Any]]:
    """Return the rows of these requests, to insert."""
    return [
        {
            "job": jobs[request.key].number,
            "requester": request.requester,
            "run_id": request.run_id,
            "backfill_id": request.backfill_id,
            "covers_tables": request.covers_tables,
            "asked": now,
            "reported": None,
            "withdrawn": None,
            "withdrawn_by": "",
        }
        for request in wanted
    ]


def asked_before(
    connection: Connection, jobs: Collection[Job], requesters: set[str]
) -> set[tuple[int, str]]:
    """Return (job number, requester) of the stored requests of these requesters for these jobs."""
    query = select(_r.job, _r.requester).where(
        _r.job.in_([job.number for job in jobs]), _r.requester.in_(requesters)
    )
    return {(number, requester) for number, requester in connection.execute(query)}


def withdraw_requests(connection: Connection, run_id: str, by: str, now: dt.datetime) -> None:
    """Withdraw a run's requests, except those that another run has taken over."""
    connection.execute(
        update(schema.requests)
        .where(_r.run_id == run_id, _r.withdrawn.is_(None))
        .values(withdrawn=now, withdrawn_by=clean_text(by))
    )


def withdraw_unwanted(
    connection: Connection, jobs: Sequence[Job], reason: str, now: dt.datetime
) -> list[Change]:
    """Return changes that withdraw those of these queued jobs that have no active request."""
    wanted: set[int] = set()
    for chunk in chunks([job.number for job in jobs]):
        query = select(_r.job).where(_r.job.in_(chunk), _r.withdrawn.is_(None)).distinct()
        wanted.update(connection.execute(query).scalars())
    return [moves.withdraw(job, reason, now=now) for job in jobs if job.number not in wanted]


def mark_reported(
    connection: Connection, numbers: Collection[int], run_id: str, now: dt.datetime
) -> None:
    """Mark these jobs, and the run's requests for them, as reported.

    Requests that another run has taken over are not marked: that run still waits.
    """
    for chunk in chunks(sorted(numbers)):
        connection.execute(
            update(schema.requests)
            .where(_r.job.in_(chunk), _r.run_id == run_id, _r.reported.is_(None))
            .values(reported=now)
        )
    _mark_jobs(connection, numbers, now)


def confirm_reports(
    connection: Connection, reports: Collection[ParseReport], now: dt.datetime
) -> None:
    """Mark jobs as reported to Dagster, with the requests that each report lists."""
    rows = [
        {"of": item.number, "who": requester, "asked_at": asked, "now": now}
        for item in reports
        for requester, asked in item.requests.items()
    ]
    if rows:
        connection.execute(_CONFIRM_REQUEST, rows)
    _mark_jobs(connection, [item.number for item in reports], now)


def _mark_jobs(connection: Connection, numbers: Collection[int], now: dt.datetime) -> None:
    for chunk in chunks(sorted(numbers)):
        connection.execute(
            update(schema.jobs)
            .where(_j.number.in_(chunk), _j.reported.is_(None))
            .values(reported=now)
        )


def without_repeats(wanted: Sequence[JobRequest]) -> Iterator[list[JobRequest]]:
    """Split requests into batches with distinct keys: a second request must see the first."""
    part: dict[JobKey, JobRequest] = {}
    for request in wanted:
        if request.key in part or len(part) == _ENQUEUED_AT_ONCE:
            yield list(part.values())
            part = {}
        part[request.key] = request
    if part:
        yield list(part.values())
