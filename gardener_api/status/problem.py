"""A problem as the status page shows it, and the words its sentences are made of. Pure."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gardener_api.jobs.job import JobState
from gardener_api.jobs.snapshot import JobFact, Snapshot

UNTAKEN = dt.timedelta(minutes=30)
"""How long a queued job, or the tables of a parsed date, may wait to be started."""
SHOWN = 8
"""Maximum number of jobs that a problem links to."""
NAMED = 5
"""Maximum number of sources or states in a title."""
LINES = 6
"""Maximum number of lines in the text of a problem."""


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
    about: str = ""  # the error, or the dates
    jobs: tuple[JobLink, ...] = ()
    count: int = 0  # number of its jobs, linked or not
    query: Mapping[str, str] | None = None  # URL query of the list that shows them
    grave: bool = True  # False: it may resolve without help


def at_least(jobs: Sequence[JobFact], snapshot: Snapshot) -> str:
    """Return ``"At least "`` for a list of jobs that may be truncated, else ``""``."""
    return "At least " if len(jobs) >= snapshot.most else ""


def counted(names: Counter[str] | Counter[JobState]) -> str:
    """Join names, the most frequent first, with their counts if there are several."""
    if len(names) == 1:
        return next(iter(names))
    named = [f"{name} {n}" for name, n in names.most_common(NAMED)]
    more = len(names) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def lines(texts: Iterable[str]) -> str:
    """Join the first ``LINES`` texts, and say how many more there are."""
    listed = list(texts)
    more = len(listed) - LINES
    return "\n".join(listed[:LINES] + ([f"and {more} more: see the grid"] if more > 0 else []))


def links(jobs: Iterable[JobFact]) -> tuple[JobLink, ...]:
    """Return links to the jobs with the newest dates, at most ``SHOWN``."""
    newest = sorted(jobs, key=lambda job: (job.date, job.source), reverse=True)[:SHOWN]
    return tuple(JobLink(number=j.number, label=f"{j.source} {j.date}") for j in newest)
