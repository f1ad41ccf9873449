"""Convert jobs and their events to rows of the database, and back.

``queries`` selects the rows to read, ``store`` decides what changes.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Update,
    and_,
    bindparam,
    func,
    insert,
    select,
    update,
)

from gardener_api.jobs.job import Change, Event, Job, JobKey, JobState, Priority, event
from gardener_api.store import schema

CHUNK = 500
"""Maximum number of values in a statement, for databases' limits and short transactions."""

T = TypeVar("T")
_c = schema.jobs.c
_READ = (
    _c.bucket, _c.experiment, _c.datatype, _c.date, _c.state, _c.priority, _c.failed_in,
    _c.number, _c.generation, _c.attempt, _c.rank, _c.daily, _c.filter, _c.tmp, _c.raw, _c.join,
    _c.archives, _c.archive_bytes, _c.detail, _c.error, _c.parser, _c.run_id, _c.created,
    _c.entered, _c.leased, _c.lease_expires, _c.updated, _c.parsed, _c.ended,
)  # fmt: skip
_PLAIN = tuple(column.name for column in _READ[7:])
_EVENT = tuple(field.name for field in fields(Event))

# Each statement writes only columns that can have changed: writing an indexed column adds an index
# entry, even for the same value. A parser's update per file changes no indexed column.
_RENEWED = ("detail", "lease_expires", "updated")
_MOVED = (
    "state", "detail", "error", "failed_in", "parser", "run_id", "entered", "leased",
    "lease_expires", "updated", "parsed", "ended",
)  # fmt: skip
_RETRIED = (*_MOVED, "attempt")


def _update(names: Iterable[str]) -> Update:
    statement = update(schema.jobs).where(_c.number == bindparam("of"))
    return statement.values({name: bindparam(name) for name in names})


_RENEW = _update(_RENEWED)
_MOVE = _update(_MOVED)
_RETRY = _update((*_RETRIED, "wire_id"))
_TELL = insert(schema.events)


def job_of(row: Sequence[Any]) -> Job:
    """Convert a row of ``select_jobs`` to a job."""
    bucket, experiment, datatype, date, state, priority, failed_in = row[:7]
    return Job(
        key=JobKey(bucket=bucket, experiment=experiment, datatype=datatype, date=date),
        state=JobState(state),
        priority=Priority(priority),
        failed_in=JobState(failed_in) if failed_in else None,
        **dict(zip(_PLAIN, row[7:], strict=True)),
    )


def select_jobs() -> Select[Any]:
    """Select all jobs, with the columns that ``job_of`` reads."""
    return select(*_READ)


def is_latest(keys: Collection[str]) -> ColumnElement[bool]:
    """Condition that a job is the newest generation of one of these keys."""
    other = schema.jobs.alias()
    newest = select(func.max(other.c.generation)).where(other.c.key == _c.key).scalar_subquery()
    return and_(_c.key.in_(keys), _c.generation == newest)


def chunks(values: Collection[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Split the values into lists of at most ``size``."""
    rest = iter(values)
    while chunk := list(islice(rest, size)):
        yield chunk


def locked(connection: Connection, query: Select[Any]) -> list[Job]:
    """Return the jobs of the query, locked until the transaction ends.

    Jobs are always locked in the same order, so that transactions do not deadlock.
    """
    return [job_of(row) for row in connection.execute(locking(query))]


def locking(query: Select[Any]) -> Select[Any]:
    """Return the query with ``FOR UPDATE``, in the order of the jobs' numbers."""
    return query.order_by(_c.number).with_for_update(of=schema.jobs)


def insert_jobs(
    connection: Connection,
    made: Collection[Job],
    now: dt.datetime,
    history: Mapping[JobKey, Sequence[Event]] | None = None,
) -> list[Change]:
    """Insert new jobs of different keys, each with its first event.

    Args:
        connection: In a transaction.
        made: The jobs.
        now: The time.
        history: Events of imported jobs, by key, at least one each: they replace the first event.

    Returns:
        The same jobs with their numbers, and these events.
    """
    if not made:
        return []
    new = insert(schema.jobs).returning(_c.key, _c.number)
    numbers = {row.key: row.number for row in connection.execute(new, [_new(job) for job in made])}
    jobs = [replace(job, number=numbers[str(job.key)]) for job in made]
    past = history or {}
    changes = [Change(job=job, events=_first_events(job, past.get(job.key), now)) for job in jobs]
    _insert_events(connection, [event for change in changes for event in change.events])
    return changes


def _first_events(job: Job, history: Sequence[Event] | None, now: dt.datetime) -> tuple[Event, ...]:
    if history is None:
        return (event(job, job.state, now=now, left=None),)
    return tuple(replace(item, job=job.number) for item in history)


def save_jobs(connection: Connection, changes: Iterable[Change]) -> None:
    """Save changed jobs and their events."""
    renewed, moved, retried = [], [], []
    events: list[Event] = []
    for change in merged(changes):
        job, of = change.job, {"of": change.job.number}
        events += change.events
        if not change.events:
            renewed.append(_values(job, _RENEWED) | of)
        elif all(event.attempt == job.attempt for event in change.events):
            moved.append(_values(job, _MOVED) | of)
        else:
            retried.append(_values(job, _RETRIED) | of | {"wire_id": job.id})
    for statement, rows in ((_RENEW, renewed), (_MOVE, moved), (_RETRY, retried)):
        if rows:
            connection.execute(statement, rows)
    if events:
        _insert_events(connection, events)


def merged(changes: Iterable[Change]) -> list[Change]:
    """Merge the changes of each job into one: the last version of the job, and all events."""
    last: dict[int, Change] = {}
    for change in changes:
        before = last.get(change.job.number)
        events = (*before.events, *change.events) if before else change.events
        last[change.job.number] = Change(job=change.job, events=events)
    return list(last.values())


def _new(job: Job) -> dict[str, Any]:
    return _values(job, ("state", "priority", *_PLAIN[1:])) | {
        "bucket": job.key.bucket,
        "experiment": job.key.experiment,
        "datatype": job.key.datatype,
        "date": job.key.date,
        "failed_in": job.failed_in,
        "key": str(job.key),
        "wire_id": job.id,
    }


def _values(of: Job | Event, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(of, name) for name in names}


def _insert_events(connection: Connection, events: Iterable[Event]) -> None:
    connection.execute(_TELL, [_values(event, _EVENT) for event in events])


def parser_versions(text: str) -> tuple[str, ...]:
    """Split the parser versions that ``partition_versions`` has of a partition."""
    return tuple(text.split(schema.VERSION_SEPARATOR)) if text else ()
