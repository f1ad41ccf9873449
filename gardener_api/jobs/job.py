"""The parse job: its key, its states, and the one table of transitions by which all move it.

Pure data and functions without I/O, clock or database: here belongs what is true of a job wherever
it is kept. What parsers say about a job is in ``parser_calls``, what runs of its tables say in
``table_stages``; keeping jobs is ``store``'s.
"""

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum

MAX_TEXT = 2_000
"""Characters of a detail or an error that are kept; the rest is cut."""
DAMAGED_ARCHIVES = "damaged archives: "
"""What the detail of a parsed job begins with whose parser names archives that it could not read in
full. M-Lab's own parsers name none."""


class JobState(StrEnum):
    """Where a job is; the values are the names that M-Lab's dashboards and parsers use."""

    QUEUED = "queued"
    INIT = "init"  # handed out to a parser that has not said anything yet
    PARSING = "parsing"
    POST_PROCESSING = "postProcessing"  # its parse is done, its tables are not begun
    LOADING = "loading"
    DEDUPLICATING = "deduplicating"
    COPYING = "copying"
    DELETING = "deleting"
    JOINING = "joining"
    COMPLETE = "complete"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"  # taken back: nobody wants it, or a newer job takes its place


class Priority(IntEnum):
    """The first criterion of the order in which jobs are handed out; smaller is sooner."""

    DAILY = 0
    BACKFILL = 1
    HISTORICAL = 2


ENDED = frozenset({JobState.COMPLETE, JobState.FAILED, JobState.WITHDRAWN})
OPEN = frozenset(JobState) - ENDED
PARSING_STATES = frozenset({JobState.INIT, JobState.PARSING})
"""A parser holds the job, under a lease."""
TABLE_STATES = frozenset(
    {
        JobState.LOADING,
        JobState.DEDUPLICATING,
        JobState.COPYING,
        JobState.DELETING,
        JobState.JOINING,
    }
)

_FIRST_STAGES = frozenset({JobState.LOADING, JobState.DEDUPLICATING, JobState.JOINING})
"""Where a run of the tables can begin: each makes one of tmp, raw and joined."""
_TABLES_END = frozenset({JobState.COMPLETE, JobState.FAILED, JobState.WITHDRAWN})
"""Withdrawn: its key is asked for again after its parse came into raw."""

TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.INIT, JobState.WITHDRAWN}),
    # A day without files has nothing to parse, so a parser may go from init to postProcessing.
    JobState.INIT: frozenset(
        {JobState.PARSING, JobState.POST_PROCESSING, JobState.QUEUED, JobState.FAILED}
    ),
    JobState.PARSING: frozenset({JobState.POST_PROCESSING, JobState.QUEUED, JobState.FAILED}),
    JobState.POST_PROCESSING: frozenset({JobState.LOADING, JobState.FAILED}),
    # A stage with nothing to do is skipped; a repeat after a crash starts at a first stage again.
    JobState.LOADING: TABLE_STATES | _TABLES_END,
    JobState.DEDUPLICATING: TABLE_STATES | _TABLES_END,
    JobState.COPYING: _FIRST_STAGES | {JobState.DELETING} | _TABLES_END,
    JobState.DELETING: _FIRST_STAGES | _TABLES_END,
    JobState.JOINING: _FIRST_STAGES | _TABLES_END,
    # The tables are made again from the parse that there is: a repair, or newer annotations.
    JobState.COMPLETE: _FIRST_STAGES,
    JobState.FAILED: _FIRST_STAGES,  # only where its parse was done: see `table_stages`
    JobState.WITHDRAWN: frozenset(),
}

PARSE_ERROR = "parseError"
"""An event, not a state: the parser gave the attempt up."""
LEASE_EXPIRED = "leaseExpired"
"""An event, not a state: the parser was silent for longer than its lease."""


BY_PERSON = "a person"
"""What ``Request.withdrawn_by`` begins with where a person decided it: only then is a date of the
daily schedule not asked for again."""


class TransitionError(ValueError):
    """A move that ``TRANSITIONS`` does not know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobKey:
    """One datatype of one experiment on one date, in one bucket of archives."""

    bucket: str
    experiment: str
    datatype: str
    date: dt.date

    def __str__(self) -> str:
        day = self.date.isoformat().replace("-", "")  # strftime takes ten times as long
        return f"{self.bucket}/{self.experiment}/{self.datatype}/{day}"

    @classmethod
    def parse(cls, text: str) -> "JobKey":
        """The key that ``str`` wrote.

        Raises:
            ValueError: The text is no key.
        """
        match = re.fullmatch(r"([^/]+)/([^/]+)/([^/]+)/(\d{8})", text, re.ASCII)
        if match:
            bucket, experiment, datatype, day = match.groups()
            try:
                date = dt.datetime.strptime(day, "%Y%m%d").replace(tzinfo=dt.UTC).date()
            except ValueError:
                match = None
        if not match:
            raise ValueError(
                f"no job key: {text!r}: expected bucket/experiment/datatype/YYYYMMDD"
            ) from None
        return cls(bucket=bucket, experiment=experiment, datatype=datatype, date=date)

    @property
    def source(self) -> str:
        """``<experiment>/<datatype>``, the name of its source in the configuration."""
        return f"{self.experiment}/{self.datatype}"

    @property
    def prefix(self) -> str:
        """What the names of its archives begin with, in the bucket."""
        return f"{self.experiment}/{self.datatype}/{self.date:%Y/%m/%d}/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A parse job as the store holds it; every time is aware and UTC."""

    number: int
    key: JobKey
    generation: int  # 1 the first time that this key was ever asked for, one more each time after
    attempt: int  # of this generation, from 1
    state: JobState
    priority: Priority
    rank: int  # of its source, by the order in the configuration
    daily: bool  # of the daily schedule; fixed when the job is made
    filter: str
    tmp: str
    raw: str
    join: str  # "" where the source has no joined table
    archives: int | None  # objects that were listed when it was asked for; None: not listed
    archive_bytes: int | None  # of those objects
    detail: str
    error: str  # the last error, "" if none
    failed_in: JobState | None
    parser: str  # the address of the parser that has or had this attempt, "" if none
    run_id: str  # the Dagster run that makes its tables, "" if none
    created: dt.datetime
    entered: dt.datetime  # when it came to its state
    leased: dt.datetime | None  # when this attempt was handed out
    lease_expires: dt.datetime | None  # only while a parser holds it
    updated: dt.datetime | None  # the last call of a parser
    parsed: dt.datetime | None  # when its parse was done
    ended: dt.datetime | None  # when it first ended

    @property
    def id(self) -> str:
        """The ID on the wire. It names the attempt, and is opaque to parsers."""
        return self.attempt_id(self.attempt)

    def attempt_id(self, attempt: int) -> str:
        """The ID of an attempt of this generation."""
        if self.generation == 1 and attempt == 1:
            return str(self.key)
        return f"{self.key}~{self.generation}.{attempt}"

    @property
    def reopened(self) -> bool:
        """It ended once, and its tables are being made again from the parse that there was."""
        return self.ended is not None and self.state in OPEN

    @property
    def is_in_raw(self) -> bool:
        """Its parse is in raw, or was once: who asks now wants the archives as they are now."""
        return self.reopened or self.state is JobState.JOINING


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened to a job: it came to a state, or its attempt ended."""

    job: int
    at: dt.datetime
    attempt: int
    state: str  # a JobState, PARSE_ERROR or LEASE_EXPIRED
    detail: str
    left: str  # the state before, "" for a job that was just made
    seconds: float  # that it was in that state


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What a move makes of a job. Without events its state and attempt are as they were."""

    job: Job
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """What a run asks for: a job's key, what to hand to the parser, and who wants it."""

    key: JobKey
    requester: str  # the same after a restart of whoever asks
    run_id: str
    backfill_id: str | None
    covers_tables: bool  # that backfill makes the tables too
    priority: Priority
    daily: bool
    filter: str
    tmp: str
    raw: str
    join: str | None
    rank: int
    archives: int | None  # objects in its archive; None: not listed
    archive_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Who asked for a job."""

    requester: str
    run_id: str
    backfill_id: str | None
    covers_tables: bool
    asked: dt.datetime  # the last time
    reported: dt.datetime | None  # when the requester took note of the job's end
    withdrawn: dt.datetime | None
    withdrawn_by: str = ""  # who took it back and why; "" if nobody did, or it is not known


@dataclass(frozen=True, kw_only=True, slots=True)
class Parsed:
    """A job whose parse is done, and who still wants it."""

    job: Job
    requests: tuple[Request, ...]
    withdrawn: tuple[Request, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a job ended for a run that asked for it: parsed, failed or withdrawn."""

    job: Job
    request: Request


@dataclass(frozen=True, kw_only=True, slots=True)
class ParseReport:
    """A parsed job that is reported to Dagster, for the requests that it had at that time.

    Attributes:
        number: Of the job.
        requests: For each requester, when it had last asked. A run that asks later is not in it:
            the job is still to be reported for it.
    """

    number: int
    requests: Mapping[str, dt.datetime]

    @classmethod
    def of(cls, parsed: Parsed) -> "ParseReport":
        """The report of a job, as it was read."""
        return cls(
            number=parsed.job.number,
            requests={request.requester: request.asked for request in parsed.requests},
        )


def clean_text(text: str, limit: int = MAX_TEXT) -> str:
    """The text as a database can keep it, cut at ``limit`` characters.

    NUL (PostgreSQL refuses it) and lone surrogates (no UTF-8 has them) are replaced.
    """
    text = text[:limit]
    if text.isascii():
        return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text.encode("utf-8", "replace").decode("utf-8")


def attaches(latest: Job, *, own: bool) -> bool:
    """Whether asking for a key joins its latest job; else a new generation is made.

    Args:
        latest: The newest job of the key.
        own: The requester has asked for that very job before.
    """
    if own and latest.state not in (JobState.FAILED, JobState.WITHDRAWN):
        return True  # a run that is tried again takes what it already has
    # A job may wait for its annotations for days: it must not keep its date from being parsed.
    return latest.state in OPEN and not latest.is_in_raw


def move(
    job: Job, state: JobState, *, now: dt.datetime, detail: str = "", **fields: object
) -> Change:
    """Take a job to another state.

    Args:
        job: The job.
        state: Where it goes.
        now: The time.
        detail: Its new detail.
        **fields: Other fields of ``Job`` that change with it.

    Raises:
        TransitionError: ``TRANSITIONS`` does not allow it.
    """
    if state not in TRANSITIONS[job.state]:
        allowed = ", ".join(sorted(TRANSITIONS[job.state])) or "nothing"
        raise TransitionError(f"job {job.id}: {job.state} to {state}: expected one of: {allowed}")
    if state in ENDED and job.ended is None:
        fields["ended"] = now
    moved = replace(job, state=state, entered=now, detail=clean_text(detail), **fields)  # type: ignore[arg-type]  # names of Job's fields, checked by replace
    return Change(job=moved, events=(event(moved, state, now=now, left=job),))


def event(job: Job, state: str, *, now: dt.datetime, left: Job | None) -> Event:
    """The record of what happened to a job, with how long it was in the state before.

    Args:
        job: The job as it is after it.
        state: Its new state, or the name of the event.
        now: The time.
        left: The job before; ``None`` for one that was just made.
    """
    return Event(
        job=job.number,
        at=now,
        attempt=job.attempt,
        state=state,
        detail=job.detail,
        left=left.state if left else "",
        seconds=(now - left.entered).total_seconds() if left else 0.0,
    )


def new_job(request: JobRequest, generation: int, *, now: dt.datetime) -> Job:
    """Return the job that a request makes, numbered 0 until the store numbers it.

    Where the archive has nothing, there is nothing to parse either: such a job is parsed already.
    """
    nothing = request.archives == 0
    return Job(
        number=0,
        key=request.key,
        generation=generation,
        attempt=1,
        state=JobState.POST_PROCESSING if nothing else JobState.QUEUED,
        priority=request.priority,
        rank=request.rank,
        daily=request.daily,
        filter=request.filter,
        tmp=request.tmp,
        raw=request.raw,
        join=request.join or "",
        archives=request.archives,
        archive_bytes=request.archive_bytes,
        detail="no archive files" if nothing else "",
        error="",
        failed_in=None,
        parser="",
        run_id="",
        created=now,
        entered=now,
        leased=None,
        lease_expires=None,
        updated=None,
        parsed=now if nothing else None,
        ended=None,
    )


def withdraw(job: Job, reason: str, *, now: dt.datetime) -> Change:
    """Take a job back."""
    return move(job, JobState.WITHDRAWN, now=now, detail=reason)
