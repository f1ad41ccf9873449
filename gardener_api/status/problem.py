"""A problem as the status page shows it, and the words its sentences are made of. Pure."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gardener_api.jobs.job import JobState
from gardener_api.jobs.snapshot import JobFact, Snapshot

UNTAKEN = dt.timedelta(minutes=30)
"""That the tables of a parsed date, or a queued job, may wait to be begun."""
SHOWN = 8
"""Jobs that a problem links to, at most."""
NAMED = 5
"""Sources or states that a title names, at most."""
LINES = 6
"""Of what a problem tells, at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobLink:
    """A job that a problem is about."""

    number: int
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something that is wrong."""

    title: str
    todo: str
    about: str = ""  # the error, or which dates
    jobs: tuple[JobLink, ...] = ()
    count: int = 0  # of the jobs that it is about, linked or not
    query: Mapping[str, str] | None = None  # of the list that shows them
    grave: bool = True  # else it may end well without help


def at_least(jobs: Sequence[JobFact], snapshot: Snapshot) -> str:
    """What stands before a number of jobs out of a list, which may have been cut."""
    return "At least " if len(jobs) >= snapshot.most else ""


def counted(names: Counter[str] | Counter[JobState]) -> str:
    """Names, the most frequent first, each with its number where there are several."""
    if len(names) == 1:
        return next(iter(names))
    named = [f"{name} {n}" for name, n in names.most_common(NAMED)]
    more = len(names) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def lines(texts: Iterable[str]) -> str:
    """The first lines of a problem's text, and how many more there are."""
    listed = list(texts)
    more = len(listed) - LINES
    return "\n".join(listed[:LINES] + ([f"and {more} more: see the grid"] if more > 0 else []))


def links(jobs: Iterable[JobFact]) -> tuple[JobLink, ...]:
    """Links to the jobs, those of the newest dates."""
    newest = sorted(jobs, key=lambda job: (job.date, job.source), reverse=True)[:SHOWN]
    return tuple(JobLink(number=j.number, label=f"{j.source} {j.date}") for j in newest)
