"""Parsers' calls as data, and how each changes its job.

Pure functions: a job and a call give a changed job or a refusal. ``jobs_api`` receives the calls,
``store`` saves the outcomes.
"""

import datetime as dt
from dataclasses import dataclass, replace

from gardener_api.jobs.job import (
    LEASE_EXPIRED,
    PARSE_ERROR,
    PARSING_STATES,
    Change,
    Job,
    JobState,
    clean_text,
    event,
    move,
)

KEEP_DETAIL = "-"
"""Detail of an update that keeps the job's old detail."""
_MAX_ID = 1_000  # characters


def _known_id(job_id: str) -> str:
    """Return the ID, or ``""``, which no job has, if it cannot be stored as the ID of a job.

    It is not cleaned like other text: the result could be the ID of another job.
    """
    storable = len(job_id) <= _MAX_ID and "\0" not in job_id
    if storable and not job_id.isascii():
        storable = not any("\ud800" <= character <= "\udfff" for character in job_id)
    return job_id if storable else ""


@dataclass(frozen=True, slots=True)
class Next:
    """A parser asks for a job."""

    parser: str = ""  # its address


@dataclass(frozen=True, slots=True)
class Update:
    """A parser reports its state."""

    id: str
    state: str
    detail: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", _known_id(self.id))
        object.__setattr__(self, "detail", clean_text(self.detail))


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A parser reports that it is alive."""

    id: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", _known_id(self.id))


@dataclass(frozen=True, slots=True)
class Error:
    """A parser reports an error and gives up its attempt."""

    id: str
    error: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", _known_id(self.id))
        object.__setattr__(self, "error", clean_text(self.error))


Report = Update | Heartbeat | Error
"""A call about a job that the parser has."""
Call = Next | Report


@dataclass(frozen=True, slots=True)
class Gone:
    """Refused: there is no such job, or the attempt with this ID has ended."""

    id: str


@dataclass(frozen=True, slots=True)
class BadState:
    """Refused: a parser may not report this state, or not now."""

    id: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class NoJob:
    """Refused: there is nothing to hand out."""


Refusal = Gone | BadState | NoJob


@dataclass(frozen=True, kw_only=True, slots=True)
class LeasePolicy:
    """The lease of a job, and the maximum number of its attempts."""

    lease: dt.timedelta  # how long a parser may be silent
    max_attempts: int


def hand_out(job: Job, call: Next, *, policy: LeasePolicy, now: dt.datetime) -> Change:
    """Hand out a queued job to a parser."""
    return move(
        job,
        JobState.INIT,
        now=now,
        parser=clean_text(call.parser),
        leased=now,
        updated=now,
        lease_expires=now + policy.lease,
    )


def apply_report(
    job: Job | None, call: Report, *, policy: LeasePolicy, now: dt.datetime
) -> Change | Refusal:
    """Apply a parser's call to the job whose ID it names.

    A repeated update is accepted and changes nothing more: its first answer may have been lost.
    A call after the lease's end renews the lease if ``expire_lease`` has not ended the attempt.

    Args:
        job: The job whose current attempt has that ID; ``None`` if there is none.
        call: The call.
        policy: The lease and the maximum number of attempts.
        now: The time.
    """
    if job is None or job.leased is None:
        return Gone(call.id)
    if job.state in PARSING_STATES:
        match call:
            case Heartbeat():
                return Change(job=replace(job, updated=now, lease_expires=now + policy.lease))
            case Update():
                return _update(job, call, policy=policy, now=now)
            case Error():
                return _end_attempt(job, PARSE_ERROR, call.error, policy=policy, now=now)
    if job.parsed is not None:
        return _after_parse(job, call)
    return Gone(call.id)


def _update(job: Job, call: Update, *, policy: LeasePolicy, now: dt.datetime) -> Change | BadState:
    detail = job.detail if call.detail == KEEP_DETAIL else call.detail
    match call.state:
        case JobState.PARSING if job.state is JobState.PARSING:
            expires = now + policy.lease
            return Change(job=replace(job, detail=detail, updated=now, lease_expires=expires))
        case JobState.PARSING:
            expires = now + policy.lease
            return move(
                job, JobState.PARSING, now=now, detail=detail, updated=now, lease_expires=expires
            )
        case JobState.POST_PROCESSING:
            return move(
                job,
                JobState.POST_PROCESSING,
                now=now,
                detail=detail,
                updated=now,
                parsed=now,
                lease_expires=None,
            )
    return BadState(call.id, call.state, "expected parsing or postProcessing")


def _after_parse(job: Job, call: Report) -> Change | Refusal:
    match call:
        case Error():
            return Gone(call.id)
        case Update(state=JobState.POST_PROCESSING):
            if job.state is JobState.POST_PROCESSING and call.detail != KEEP_DETAIL:
                return Change(job=replace(job, detail=call.detail))
        case Update():
            return BadState(call.id, call.state, "expected postProcessing, which was said already")
        case Heartbeat():
            pass
    return Change(job=job)


def expire_lease(job: Job, *, policy: LeasePolicy, now: dt.datetime) -> Change:
    """End the attempt of a parser that was silent for longer than its lease."""
    last = f"{job.updated:%Y-%m-%d %H:%M:%S} UTC" if job.updated else "never"
    error = (
        f"lease ended: parser {job.parser or 'unknown'} was silent for more than {policy.lease}"
        f" in attempt {job.attempt} of {policy.max_attempts}; its last call: {last},"
        f" {job.state}{f' {job.detail!r}' if job.detail else ''}"
    )
    return _end_attempt(job, LEASE_EXPIRED, clean_text(error), policy=policy, now=now)


def _end_attempt(
    job: Job, name: str, error: str, *, policy: LeasePolicy, now: dt.datetime
) -> Change:
    """End the attempt: queue the job again, or fail it if this was its last attempt."""
    told = event(replace(job, detail=error), name, now=now, left=job)
    if job.attempt < policy.max_attempts:
        over = move(
            job,
            JobState.QUEUED,
            now=now,
            attempt=job.attempt + 1,
            error=error,
            parser="",
            leased=None,
            lease_expires=None,
        )
    else:
        over = move(
            job,
            JobState.FAILED,
            now=now,
            detail=job.detail,
            error=error,
            failed_in=job.state,
            lease_expires=None,
        )
    (ending,) = over.events
    return Change(job=over.job, events=(told, replace(ending, detail=error, left=name, seconds=0)))
