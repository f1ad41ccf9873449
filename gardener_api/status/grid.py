"""The status page's grid: sources by date, and what the signs of the states mean. Pure."""

import datetime as dt
from itertools import groupby
from typing import Any

from gardener_api.config import GardenerConfig
from gardener_api.jobs.job import TABLE_STATES, JobState
from gardener_api.jobs.snapshot import FailedCheck, Snapshot

SIGNS = {
    JobState.QUEUED: "q",
    JobState.INIT: "i",
    JobState.PARSING: "p",
    JobState.POST_PROCESSING: "w",
    **dict.fromkeys(TABLE_STATES, "t"),
    JobState.COMPLETE: "✓",
    JobState.FAILED: "✗",
    JobState.WITHDRAWN: "–",
}
"""The signs in the grid's cells: colour alone is not accessible to everybody."""


def grid_rows(config: GardenerConfig, snapshot: Snapshot) -> list[tuple[Any, dict[dt.date, Any]]]:
    """Return each source with the newest job of each of its dates."""
    jobs: dict[str, dict[dt.date, Any]] = {source.name: {} for source in config.sources}
    for job in snapshot.recent:
        if job.source in jobs:
            jobs[job.source][job.date] = job
    return [(source, jobs[source.name]) for source in config.sources]


def failed_checks(snapshot: Snapshot) -> dict[tuple[str, dt.date], tuple[str, str]]:
    """Return the worst severity and the names of the failed checks, by source and date."""
    found: dict[tuple[str, dt.date], list[FailedCheck]] = {}
    for check in snapshot.failed_checks:
        found.setdefault((check.source, check.date), []).append(check)
    return {
        of: (
            min(check.severity for check in checks),  # "error" comes before "warn"
            ", ".join(sorted({check.name for check in checks})),
        )
        for of, checks in found.items()
    }


def legend() -> list[tuple[str, str, JobState]]:
    """Return each sign, its meaning, and a state that has its colour."""
    named: dict[str, tuple[str, JobState]] = {}
    for state, sign in SIGNS.items():
        named.setdefault(sign, ("its tables are made" if state in TABLE_STATES else state, state))
    return [(sign, name, state) for sign, (name, state) in named.items()]


def months(dates: list[dt.date]) -> list[tuple[str, int]]:
    """Return each month of these dates, with its number of dates."""
    return [(month, len(list(some))) for month, some in groupby(dates, lambda d: f"{d:%Y-%m}")]
