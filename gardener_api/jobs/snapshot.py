"""A snapshot of the jobs, from which the status page finds what is wrong.

Pure data, and which dates there should be. ``snapshot_queries`` reads it from the store,
``problems`` judges it.
"""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import JobState

GRID_DAYS = 30
"""Days, up to yesterday, that are looked at for missing ones, and shown."""
LATELY = dt.timedelta(hours=24)
"""How long lost attempts are shown."""
ASKED_AT = dt.timedelta(hours=10, minutes=30)
"""When the daily schedule asks for the day before, after midnight UTC."""
ASK_GRACE = dt.timedelta(hours=1)
"""From the schedule's time to the job's being there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFact:
    """As much of a job as problems and the grid need."""

    number: int
    experiment: str
    datatype: str
    date: dt.date
    state: JobState
    failed_in: JobState | None
    error: str
    parser: str
    entered: dt.datetime
    updated: dt.datetime | None
    lease_expires: dt.datetime | None
    archives: int | None = None  # when it was asked for

    @property
    def source(self) -> str:
        """``<experiment>/<datatype>``."""
        return f"{self.experiment}/{self.datatype}"


@dataclass(frozen=True, kw_only=True, slots=True)
class LostAttempt:
    """A parser gave an attempt up, or was silent for too long."""

    number: int  # of the job
    experiment: str
    datatype: str
    date: dt.date
    name: str  # LEASE_EXPIRED or PARSE_ERROR
    at: dt.datetime
    detail: str

    @property
    def source(self) -> str:
        """``<experiment>/<datatype>``."""
        return f"{self.experiment}/{self.datatype}"


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedCheck:
    """A check of a table that has not passed."""

    number: int  # of the newest job of that date
    experiment: str
    datatype: str
    date: dt.date
    table: str  # "<dataset>.<table>"
    name: str
    severity: str  # "warn" or "error"
    description: str

    @property
    def source(self) -> str:
        """``<experiment>/<datatype>``."""
        return f"{self.experiment}/{self.datatype}"


@dataclass(frozen=True, kw_only=True, slots=True)
class DamagedArchives:
    """A parser could not read some archives of a job in full, and named them."""

    number: int  # of the job
    experiment: str
    datatype: str
    date: dt.date
    at: dt.datetime
    detail: str

    @property
    def source(self) -> str:
        """``<experiment>/<datatype>``."""
        return f"{self.experiment}/{self.datatype}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRun:
    """A Dagster run that is making tables, and where its jobs are."""

    run_id: str
    states: Mapping[JobState, int]  # how many of its jobs are in each
    sources: Sequence[str]  # "<experiment>/<datatype>"
    first: dt.date
    last: dt.date
    newest: dt.datetime  # when a job of it last came to a state


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """What is known of the jobs at one time."""

    most: int = 2_000  # jobs in one of these lists; one that is so long may be cut
    failed: Sequence[JobFact] = ()  # the newest of their keys
    in_hand: Sequence[JobFact] = ()  # those that a parser holds
    in_tables: Sequence[JobFact] = ()  # those whose parse is done, and that have not ended
    lost: Sequence[LostAttempt] = ()
    failed_checks: Sequence[FailedCheck] = ()  # of the days of the grid, the newest first
    damaged: Sequence[DamagedArchives] = ()  # the newest first
    queued: int = 0
    head: JobFact | None = None  # the first of the queue
    handed_out: dt.datetime | None = None  # the last time that any job was
    recent: Sequence[JobFact] = ()  # the newest of each key, of the days of the grid
    complete: Collection[tuple[str, dt.date]] = ()  # of these days: source and date, however old
    begun: dt.datetime | None = None  # when the first job of all was made


def grid_dates(now: dt.datetime) -> list[dt.date]:
    """The dates of the grid, the oldest first."""
    return [now.date() - dt.timedelta(days=back) for back in range(GRID_DAYS, 0, -1)]


def missing_dates(
    config: GardenerConfig, snapshot: Snapshot, *, now: dt.datetime
) -> dict[str, list[dt.date]]:
    """The dates of the grid that the schedule has asked for, and that have no job.

    A job that was withdrawn is none. The schedule did not ask for what is before the start of the
    history, nor before there was a gardener.

    Returns:
        The dates of each source that misses any.
    """
    if snapshot.begun is None:
        return {}
    known = {
        (job.source, job.date) for job in snapshot.recent if job.state is not JobState.WITHDRAWN
    }
    known.update(snapshot.complete)
    first = max(config.start_date, (snapshot.begun - ASKED_AT).date())
    last = (now - ASKED_AT - ASK_GRACE).date() - dt.timedelta(days=1)
    due = [date for date in grid_dates(now) if first <= date <= last]
    missing = {
        source.name: [date for date in due if (source.name, date) not in known]
        for source in config.sources
    }
    return {name: dates for name, dates in missing.items() if dates}
