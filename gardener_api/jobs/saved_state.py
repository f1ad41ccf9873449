"""The old gardener's saved state: what its file says about jobs, and the jobs that it makes here.

Pure functions, except for reading the file; ``store.state_import`` inserts the jobs. The format, as
etl-gardener's tracker writes it: ``Jobs`` and ``Statuses`` are mappings by job key, and the last
entry of a status' ``History`` is the job's state.
"""

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, ValidationError

from gardener_api.config import GardenerConfig, Source
from gardener_api.config_values import shown
from gardener_api.jobs.job import (
    PARSE_ERROR,
    PARSING_STATES,
    TABLE_STATES,
    Event,
    Job,
    JobKey,
    JobState,
    Priority,
    clean_text,
)

_STATES: Mapping[str, JobState] = {
    state.value: state
    for state in (
        JobState.INIT,
        JobState.PARSING,
        JobState.POST_PROCESSING,
        *sorted(TABLE_STATES),
        JobState.COMPLETE,
        JobState.FAILED,
    )
} | {PARSE_ERROR: JobState.PARSING}
"""The old gardener's states. Its parse error state maps to parsing: here it is only an event."""
_ONE_DAY = dt.timedelta(days=1)


class SavedStateError(ValueError):
    """The saved state cannot be imported; the message lists every error."""

    def __init__(self, path: Path, faults: list[str]) -> None:
        self.faults = faults
        super().__init__(
            "\n".join([f"{path}: {len(faults)} error(s)", *(f"  {fault}" for fault in faults)])
        )


def _known_state(value: str) -> str:
    if value not in _STATES:
        raise ValueError(f"expected one of {', '.join(_STATES)}")
    return value


class _Entry(BaseModel):
    """A state that a job was in."""

    State: Annotated[str, AfterValidator(_known_state)]
    Start: AwareDatetime
    DetailTime: AwareDatetime
    Detail: str = ""


class _Status(BaseModel):
    HeartbeatTime: AwareDatetime
    History: list[_Entry] = Field(min_length=1)


class _Job(BaseModel):
    Bucket: str
    Experiment: str
    Datatype: str
    Date: AwareDatetime
    Filter: str = ""


class _File(BaseModel):
    SaveTime: AwareDatetime
    Statuses: dict[str, _Status]
    Jobs: dict[str, _Job]


@dataclass(frozen=True, kw_only=True)
class SavedJob:
    """A job of the old gardener, converted to a job of this one.

    Attributes:
        job: The job, without a number yet.
        history: The events of its states, the oldest first; the last is its current state.
        saved: Its state as the old gardener names it.
        parse_error: The parser's message if the saved state is a parse error; else ``None``.
    """

    job: Job
    history: tuple[Event, ...]
    saved: str
    parse_error: str | None = None


def read_saved_state(
    path: Path, config: GardenerConfig, *, lease: dt.timedelta, now: dt.datetime
) -> list[SavedJob]:
    """Read the old gardener's saved jobs, in the order of their keys.

    Args:
        path: The file.
        config: The gardener's configuration; it must contain the source of each job.
        lease: How long a parser that holds a job may be silent, from ``now`` on.
        now: The time.

    Raises:
        SavedStateError: The file cannot be read or is cut off; a job's state or source is not
            known; a job has no status, or a status no job.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"it is not UTF-8 ({error})"
        raise SavedStateError(path, [f"cannot be read: {reason}"]) from error
    try:
        saved = _File.model_validate_json(text)
    except ValidationError as error:
        raise SavedStateError(path, _describe(error)) from error
    sources = {(s.bucket, s.name): (rank, s) for rank, s in enumerate(config.sources)}
    faults: list[str] = []
    jobs: list[SavedJob] = []
    for name in sorted(saved.Jobs.keys() | saved.Statuses.keys()):
        job, status = saved.Jobs.get(name), saved.Statuses.get(name)
        if job is None or status is None:
            kept, lacking = ("Statuses", "Jobs") if job is None else ("Jobs", "Statuses")
            faults.append(f"{kept}.{name}: expected the same key in {lacking}")
            continue
        key = JobKey(
            bucket=job.Bucket,
            experiment=job.Experiment,
            datatype=job.Datatype,
            date=job.Date.astimezone(dt.UTC).date(),
        )
        found = sources.get((key.bucket, key.source))
        if str(key) != name:
            faults.append(f"Jobs.{name}: {str(key)!r}: expected the values of its own key")
        elif found is None:
            known = ", ".join(f"{bucket}/{source}" for bucket, source in sources)
            faults.append(
                f"Jobs.{name}: {f'{key.bucket}/{key.source}'!r} is no source of the configuration:"
                f" expected one of {known}"
            )
        else:
            jobs.append(_saved_job(key, job, status, *found, lease=lease, now=now))
    if faults:
        raise SavedStateError(path, faults)
    return jobs


def _saved_job(
    key: JobKey,
    saved: _Job,
    status: _Status,
    rank: int,
    source: Source,
    *,
    lease: dt.timedelta,
    now: dt.datetime,
) -> SavedJob:
    entries = [entry.model_copy(update=_in_utc(entry)) for entry in status.History]
    first, last = entries[0], entries[-1]
    states = [_STATES[entry.State] for entry in entries]
    before = states[-2] if len(states) > 1 else JobState.INIT
    # A job in a table stage restarts after its parse: each write replaces a whole partition.
    is_parsed = states[-1] in TABLE_STATES | {JobState.POST_PROCESSING}
    state = JobState.POST_PROCESSING if is_parsed else states[-1]
    parsed = [e.Start for e, s in zip(entries, states, strict=True) if s not in PARSING_STATES]
    was_parsed = is_parsed or state is JobState.COMPLETE or before not in PARSING_STATES
    daily = key.date == first.Start.date() - _ONE_DAY
    error = _error(last, entries, state)
    heard = status.HeartbeatTime.astimezone(dt.UTC)
    datasets = source.target_datasets
    job = Job(
        number=0,
        key=key,
        generation=1,  # so that its ID is its key, the ID that its parser has
        attempt=1,
        state=state,
        priority=Priority.DAILY if daily else Priority.HISTORICAL,
        rank=rank,
        daily=daily,
        filter=saved.Filter,
        tmp=datasets.tmp,
        raw=datasets.raw,
        join=datasets.join or "",
        archives=None,
        archive_bytes=None,
        detail=clean_text(last.Detail),
        error=error,
        failed_in=before if state is JobState.FAILED else None,
        parser="",
        run_id="",
        created=first.Start,
        entered=now if is_parsed and states[-1] in TABLE_STATES else last.Start,
        leased=first.Start,
        lease_expires=now + lease if state in PARSING_STATES else None,
        updated=max(heard, last.DetailTime) if state in PARSING_STATES else last.DetailTime,
        parsed=parsed[0] if was_parsed and parsed else None,
        ended=last.Start if state in (JobState.COMPLETE, JobState.FAILED) else None,
    )
    gave_up = clean_text(last.Detail) if last.State == PARSE_ERROR else None
    return SavedJob(
        job=job,
        history=tuple(_events(entries, states, job, now=now)),
        saved=last.State,
        parse_error=gave_up,
    )


def _in_utc(entry: _Entry) -> dict[str, Any]:
    return {
        "Start": entry.Start.astimezone(dt.UTC),
        "DetailTime": entry.DetailTime.astimezone(dt.UTC),
    }


def _error(last: _Entry, entries: list[_Entry], state: JobState) -> str:
    if state is not JobState.FAILED:
        return ""
    # If the last state has no detail, the old gardener shows that of the state before.
    before = entries[-2].Detail if len(entries) > 1 else ""
    return clean_text(last.Detail or before or "the old gardener kept no reason")


def _events(
    entries: list[_Entry], states: list[JobState], job: Job, *, now: dt.datetime
) -> Iterator[Event]:
    left, since = "", entries[0].Start
    for entry, state in zip(entries, states, strict=True):
        if state == left:  # a parse error after parsing is not a new state
            continue
        detail = clean_text(entry.Detail)
        seconds = (entry.Start - since).total_seconds()
        yield Event(
            job=0,
            at=entry.Start,
            attempt=1,
            state=state,
            detail=detail,
            left=left,
            seconds=seconds,
        )
        left, since = state, entry.Start
    if job.state != left:
        yield Event(
            job=0,
            at=now,
            attempt=1,
            state=job.state,
            detail="imported from the old gardener: its tables are made again",
            left=left,
            seconds=(now - since).total_seconds(),
        )


def _describe(error: ValidationError) -> list[str]:
    faults = []
    for fault in error.errors(include_url=False):
        key = "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]
        ).removeprefix(".")
        message = str(fault["msg"]).removeprefix("Value error, ")
        if fault["type"] == "json_invalid":
            faults.append(
                f"is not JSON, or is cut off: {message}: expected the old gardener's file"
            )
        elif fault["type"] == "missing":
            faults.append(f"{key}: missing: expected it, as the old gardener saves it")
        else:
            value = shown(fault["input"])
            message = message.replace("Input should be", "expected")
            faults.append(f"{key}: {value}: {message}")
    return faults
