"""The parse job: its key, its states, and the one table of transitions by which all move it.

Pure data and functions, without I/O, clock or database. ``parser_calls`` applies the calls of
parsers to a job, ``table_stages`` the steps of table runs; ``store`` saves jobs.
"""

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum

MAX_TEXT = 2_000
"""Maximum length of a detail or an error, in characters; longer text is truncated."""
DAMAGED_ARCHIVES = "damaged archives: "
"""Prefix of the detail of a parsed job whose parser lists archives that it could not read in full.
M-Lab's own parsers list none."""


class JobState(StrEnum):
    """State of a job; the values are the names that M-Lab's dashboards and parsers use."""

    QUEUED = "queued"
    INIT = "init"  # handed out to a parser, which has not reported a state yet
    PARSING = "parsing"
    POST_PROCESSING = "postProcessing"  # parsed; its tables are not started
    LOADING = "loading"
    DEDUPLICATING = "deduplicating"
    COPYING = "copying"
    DELETING = "deleting"
    JOINING = "joining"
    COMPLETE = "complete"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"  # no requester wants it any more, or a newer job replaces it


class Priority(IntEnum):
    """Priority of a job: the first sort key of the handout order, ascending."""

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
"""Stages that a table run can start with: each writes one of the tmp, raw and joined tables."""
_TABLES_END = frozenset({JobState.COMPLETE, JobState.FAILED, JobState.WITHDRAWN})
"""Withdrawn: its key was requested again while it was in raw (``Job.is_in_raw``)."""

TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.INIT, JobState.WITHDRAWN}),
    # A day without files has nothing to parse, so a parser may go from init to postProcessing.
    JobState.INIT: frozenset(
        {JobState.PARSING, JobState.POST_PROCESSING, JobState.QUEUED, JobState.FAILED}
    ),
    JobState.PARSING: frozenset({JobState.POST_PROCESSING, JobState.QUEUED, JobState.FAILED}),
    JobState.POST_PROCESSING: frozenset({JobState.LOADING, JobState.FAILED}),
    # A stage with nothing to do is skipped; a retry after a crash restarts at a first stage.
    JobState.LOADING: TABLE_STATES | _TABLES_END,
    JobState.DEDUPLICATING: TABLE_STATES | _TABLES_END,
    JobState.COPYING: _FIRST_STAGES | {JobState.DELETING} | _TABLES_END,
    JobState.DELETING: _FIRST_STAGES | _TABLES_END,
    JobState.JOINING: _FIRST_STAGES | _TABLES_END,
    # The tables are made again from the same parse, for a repair or newer annotations.
    JobState.COMPLETE: _FIRST_STAGES,
    JobState.FAILED: _FIRST_STAGES,  # only if it was parsed: see `table_stages`
    JobState.WITHDRAWN: frozenset(),
}

PARSE_ERROR = "parseError"
"""An event, not a state: the parser reported an error and gave up the attempt."""
LEASE_EXPIRED = "leaseExpired"
"""An event, not a state: the parser was silent for longer than its lease."""


BY_PERSON = "a person"
"""Prefix of ``Request.withdrawn_by`` if a person withdrew the request: the daily schedule does not
request such a date again."""


class TransitionError(ValueError):
    """A transition that ``TRANSITIONS`` does not allow."""


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
        """Parse a key from the text that ``str`` returns for it.

        Raises:
            ValueError: The text is not a key.
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
        """``<experiment>/<datatype>``: the name of its source in the configuration."""
        return f"{self.experiment}/{self.datatype}"

    @property
    def prefix(self) -> str:
        """Prefix of the object names of its archives in the bucket."""
        return f"{self.experiment}/{self.datatype}/{self.date:%Y/%m/%d}/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A parse job as stored; every time is aware and UTC."""

    number: int
    key: JobKey
    generation: int  # of its key, from 1; each new job of the key adds one
    attempt: int  # of this generation, from 1
    state: JobState
    priority: Priority
    rank: int  # position of its source in the configuration
    daily: bool  # of the daily schedule; fixed when the job is made
    filter: str
    tmp: str
    raw: str
    join: str  # "" where the source has no joined table
    archives: int | None  # number of archive objects listed at the request; None: not listed
    archive_bytes: int | None  # total size of those objects
    detail: str
    error: str  # the last error, "" if none
    failed_in: JobState | None
    parser: str  # the address of the parser that has or had this attempt, "" if none
    run_id: str  # the Dagster run that makes its tables, "" if none
    created: dt.datetime
    entered: dt.datetime  # when it entered its state
    leased: dt.datetime | None  # when this attempt was handed out
    lease_expires: dt.datetime | None  # only while a parser holds it
    updated: dt.datetime | None  # the last call of a parser
    parsed: dt.datetime | None  # when its parse ended successfully
    ended: dt.datetime | None  # when it first ended

    @property
    def id(self) -> str:
        """The ID in the parsers' API. It identifies the attempt and is opaque to parsers."""
        return self.attempt_id(self.attempt)

    def attempt_id(self, attempt: int) -> str:
        """The ID of an attempt of this generation."""
        if self.generation == 1 and attempt == 1:
            return str(self.key)
        return f"{self.key}~{self.generation}.{attempt}"

    @property
    def reopened(self) -> bool:
        """Whether it had ended and its tables are being made again from the same parse."""
        return self.ended is not None and self.state in OPEN

    @property
    def is_in_raw(self) -> bool:
        """Whether it is being joined or was reopened: another requester then gets a new job."""
        return self.reopened or self.state is JobState.JOINING


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """An event of a job: it entered a state, its attempt ended, or a person decided about it."""

    job: int
    at: dt.datetime
    attempt: int
    state: str  # a JobState or the name of an event, such as PARSE_ERROR
    detail: str
    left: str  # the state before; "" if there is none
    seconds: float  # spent in the state before


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A changed job and its new events. Without events, its state and attempt are unchanged."""

    job: Job
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRequest:
    """A run's request for a job: its key, what to hand to the parser, and the requester."""

    key: JobKey
    requester: str  # the same when the run is retried
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
    archives: int | None  # number of objects in its archive; None: not listed
    archive_bytes: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A stored request for a job."""

    requester: str
    run_id: str
    backfill_id: str | None
    covers_tables: bool
    asked: dt.datetime  # the last time
    reported: dt.datetime | None  # when the job's end was reported for this request
    withdrawn: dt.datetime | None
    withdrawn_by: str = ""  # who withdrew it and why; "" if nobody did, or it is not known


@dataclass(frozen=True, kw_only=True, slots=True)
class Parsed:
    """A parsed job, with its active and its withdrawn requests."""

    job: Job
    requests: tuple[Request, ...]
    withdrawn: tuple[Request, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a job ended for a run that requested it: parsed, failed or withdrawn."""

    job: Job
    request: Request


@dataclass(frozen=True, kw_only=True, slots=True)
class ParseReport:
    """The report of a parsed job to Dagster, with the requests that the job had when it was read.

    Attributes:
        number: Number of the job.
        requests: Time of the last request, by requester. A later request is not included: the job
            must still be reported for it.
    """

    number: int
    requests: Mapping[str, dt.datetime]

    @classmethod
    def of(cls, parsed: Parsed) -> "ParseReport":
        """Build the report of a job for its active requests."""
        return cls(
            number=parsed.job.number,
            requests={request.requester: request.asked for request in parsed.requests},
        )


def clean_text(text: str, limit: int = MAX_TEXT) -> str:
    """Return the text in a form that databases can store, truncated to ``limit`` characters.

    NUL (refused by PostgreSQL) and lone surrogates (invalid in UTF-8) are replaced.
    """
    text = text[:limit]
    if text.isascii():
        return text.replace("\0", "\N{REPLACEMENT CHARACTER}") if "\0" in text else text
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text.encode("utf-8", "replace").decode("utf-8")


def attaches(latest: Job, *, own: bool) -> bool:
    """Return whether a request attaches to the newest job of its key; else it makes a new job.

    Args:
        latest: The newest job of the key.
        own: Whether the requester has requested this job before.
    """
    if own and latest.state not in (JobState.FAILED, JobState.WITHDRAWN):
        return True  # a retried run keeps its jobs
    # A job can wait for annotations for days; a new parse of its date must not wait for it.
    return latest.state in OPEN and not latest.is_in_raw


def move(
    job: Job, state: JobState, *, now: dt.datetime, detail: str = "", **fields: object
) -> Change:
    """Move a job to another state.

    Args:
        job: The job.
        state: Its new state.
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
    """Make the event of a change, with the seconds that the job spent in the state before.

    Args:
        job: The job after the change.
        state: Its new state, or the name of the event.
        now: The time.
        left: The job before the change; ``None`` if the event has no state before.
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
    """Return the job that a request makes; its number is 0 until the store assigns one.

    If the archive has no objects, there is nothing to parse: the job starts as parsed.
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
    """Withdraw a job."""
    return move(job, JobState.WITHDRAWN, now=now, detail=reason)
