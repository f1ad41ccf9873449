"""A snapshot of the jobs, from which the status page finds what is wrong.

Pure data, and the dates that should have jobs. ``snapshot_queries`` reads it from the store,
``problems`` finds the problems in it.
"""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import JobState

GRID_DAYS = 30
"""Number of days, up to yesterday, that the grid shows and that are checked for missing jobs."""
LATELY = dt.timedelta(hours=24)
"""How long lost attempts and damaged archives are shown."""
ASKED_AT = dt.timedelta(hours=10, minutes=30)
"""Time after midnight UTC at which the daily schedule requests the day before."""
ASK_GRACE = dt.timedelta(hours=1)
"""Time after ``ASKED_AT`` within which the job must have been created."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFact:
    """The fields of a job that problems and the grid need."""

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
    archives: int | None = None  # number of objects listed at the request

    @property
    def source(self) -> str:
        """``<experiment>/<datatype>``."""
        return f"{self.experiment}/{self.datatype}"


@dataclass(frozen=True, kw_only=True, slots=True)
class LostAttempt:
    """An attempt that ended with a parse error or an expired lease."""

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
    """A job with archives that its parser could not read in full; ``detail`` lists them."""

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
    """A Dagster run that is making tables, with the states of its jobs."""

    run_id: str
    states: Mapping[JobState, int]  # number of its jobs in each state
    sources: Sequence[str]  # "<experiment>/<datatype>"
    first: dt.date
    last: dt.date
    newest: dt.datetime  # when one of its jobs last entered a state


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """The jobs at one time, as far as problems and the grid need them."""

    most: int = 2_000  # maximum length of a list; a list of this length may be truncated
    failed: Sequence[JobFact] = ()  # without a newer job of the same key
    in_hand: Sequence[JobFact] = ()  # those that a parser holds
    in_tables: Sequence[JobFact] = ()  # those that are parsed and have not ended
    lost: Sequence[LostAttempt] = ()
    failed_checks: Sequence[FailedCheck] = ()  # of the days of the grid, the newest first
    damaged: Sequence[DamagedArchives] = ()  # the newest first
    queued: int = 0
    head: JobFact | None = None  # the next to be handed out
    handed_out: dt.datetime | None = None  # when a job last was
    recent: Sequence[JobFact] = ()  # the newest of each source and date in the grid
    complete: Collection[tuple[str, dt.date]] = ()  # those with a complete job
    begun: dt.datetime | None = None  # when the first job was created


def grid_dates(now: dt.datetime) -> list[dt.date]:
    """The dates of the grid, the oldest first."""
    return [now.date() - dt.timedelta(days=back) for back in range(GRID_DAYS, 0, -1)]


def missing_dates(
    config: GardenerConfig, snapshot: Snapshot, *, now: dt.datetime
) -> dict[str, list[dt.date]]:
    """Return the dates of the grid that the schedule has requested and that have no job.

    Withdrawn jobs do not count. The schedule requests no dates before ``start_date``, nor dates
    from before the first job was created.

    Returns:
        The missing dates of each source that has any, by the name of the source.
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
