"""Which runs of tables are due: pure functions over the facts of the job store and of Dagster.

No I/O, no clock, no Dagster: the sensors fetch the facts and carry the plans out. All plans are
level-triggered: they follow from what is, not from what just happened, so that a tick that was
missed loses nothing. Which joins are due is in ``due_joins``.
"""

import datetime as dt
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol, TypeVar

from gardener_api.config import GardenerConfig, Source
from gardener_api.jobs.job import Job, JobKey, JobState, Parsed, Priority, Request
from gardener_dagster.planning.ranges import ONE_DAY, consecutive

BEFORE_PARSED = frozenset({JobState.QUEUED, JobState.INIT, JobState.PARSING})
"""States of a job that parsers have not done."""
BEFORE_RAW = BEFORE_PARSED | {
    JobState.POST_PROCESSING,
    JobState.LOADING,
    JobState.DEDUPLICATING,
    JobState.COPYING,
    JobState.DELETING,
}
"""States of a job whose raw partition will change."""

RUNS_PER_TICK = 16
"""Runs that one tick of a sensor asks for at most: Dagster submits them one by one."""
OTHERS_PER_TICK = 6
"""Those of them that are not daily. The tick ends sooner, and the next one sees daily dates that
have come meanwhile: to submit a run takes seconds where all processors are busy."""
SOURCE_RUNS = 4
"""Unended runs of a source, from which on a sensor asks for daily ones only: what runs, and enough
in the queue to follow it. What is due beyond waits in the store, where more urgent dates still come
first, neighbours still join a range, and annotations do not get far ahead of what they are joined
to."""

ANNOTATIONS_TIMEOUT = dt.timedelta(minutes=10)
"""How long the tables of annotations may be in one stage, once their run has begun, before the rows
that they are joined to do not wait for them any more."""
ANNOTATIONS_START_TIMEOUT = dt.timedelta(minutes=2)
"""How long a run that has come to its join waits for the run of its annotations to begin."""


@dataclass(frozen=True, kw_only=True)
class TablesRun:
    """One run of the tables of a source: load to delete, with the join where it is ready.

    Attributes:
        source: Whose tables.
        jobs: One a date; the dates are consecutive.
        priority: Of all its jobs.
        backfill_id: The whole-chain backfill that asked for all its jobs, and is not over.
        joined: Whether the joined table is made too.
        lost: The runs that were lost before they had made these dates.
    """

    source: Source
    jobs: tuple[Job, ...]
    priority: Priority
    backfill_id: str | None = None
    joined: bool = False
    lost: tuple[str, ...] = ()

    @property
    def first(self) -> dt.date:
        """Its first date."""
        return self.jobs[0].key.date

    @property
    def last(self) -> dt.date:
        """Its last date."""
        return self.jobs[-1].key.date

    @property
    def title(self) -> str:
        """The job's ID, or those of a range: ``<ID of the first>..<last date>``."""
        if len(self.jobs) == 1:
            return self.jobs[0].id
        return f"{self.jobs[0].id}..{self.last:%Y%m%d}"

    @property
    def run_key(self) -> str:
        """Names the jobs with their attempts, and lost runs: what is done anew is another run."""
        [job, *others] = self.jobs
        if not others and not self.lost and job.state is JobState.POST_PROCESSING:
            return job.id
        names = [f"{job.id} {job.state}" for job in self.jobs]
        return f"{self.title}~{digest([*names, *self.lost])}"

    def annotations(self, config: GardenerConfig) -> Source | None:
        """The source whose rows its rows are joined with; ``None`` if they are joined with none."""
        return config.annotations_of(self.source) if self.source.joined_table else None

    @property
    def neighbours(self) -> tuple[JobKey, JobKey]:
        """The jobs of the day before its first and the day after its last date."""
        key = self.jobs[0].key
        before, after = self.first - ONE_DAY, self.last + ONE_DAY
        return replace(key, date=before), replace(key, date=after)


def digest(names: Iterable[str]) -> str:
    """Return a short text that stands for exactly these names in this order."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def job_key(source: Source, date: dt.date) -> JobKey:
    """The job of a source on a date."""
    return JobKey(
        bucket=source.bucket, experiment=source.experiment, datatype=source.datatype, date=date
    )


def is_partition(config: GardenerConfig, date: dt.date, *, now: dt.datetime) -> bool:
    """Whether Dagster has a partition for the date: from ``start_date`` to yesterday, UTC."""
    return config.start_date <= date < now.astimezone(dt.UTC).date()


def is_cancelled(requests: Iterable[Request], cancelled: AbstractSet[str]) -> bool:
    """Whether a job was asked for by whole-chain backfills that were cancelled, and nobody else.

    Args:
        requests: All requests for the job, withdrawn ones too.
        cancelled: The backfills that were cancelled.
    """
    theirs = wanted = False
    for request in requests:
        if request.covers_tables and request.backfill_id in cancelled:
            theirs = True
        elif request.withdrawn is None:
            wanted = True
    return theirs and not wanted


def backfill_of(requests: Iterable[Request], requested: AbstractSet[str]) -> str | None:
    """Return the whole-chain backfill whose tag the job's runs of tables carry.

    Args:
        requests: The job's, the earliest first.
        requested: The backfills that are neither over nor cancelled.
    """
    theirs = (r.backfill_id for r in requests if r.covers_tables and r.withdrawn is None)
    return next((backfill for backfill in theirs if backfill in requested), None)


def tables_due(
    config: GardenerConfig,
    parsed: Iterable[Parsed],
    *,
    taken: AbstractSet[tuple[str, dt.date]],
    requested: AbstractSet[str],
    lost: Mapping[int, str] = MappingProxyType({}),
    now: dt.datetime,
) -> list[TablesRun]:
    """Return the runs of tables that nobody has started, in the order in which to start them.

    Of a date, what the joins of others read comes first, then what is joined.

    Args:
        config: Jobs of sources that it does not have, and of dates that are no partitions, are
            left alone.
        parsed: Jobs whose parse is done and whose raw is not made.
        taken: Sources, by name, and dates that unended runs make.
        requested: The backfills that are neither over nor cancelled.
        lost: The last run that was lost, by the number of the job that it did not make.
        now: The time.
    """
    sources = {source.name: source for source in config.sources}
    read = {f"{s.experiment}/{s.annotations}" for s in config.sources if s.joined_table}
    alike: dict[tuple[str, Priority, str | None], list[Job]] = defaultdict(list)
    for item in parsed:
        key = item.job.key
        if (
            key.source in sources
            and is_partition(config, key.date, now=now)
            and (key.source, key.date) not in taken
        ):
            backfill = backfill_of(item.requests, requested)
            alike[key.source, item.job.priority, backfill].append(item.job)
    runs = [
        TablesRun(
            source=sources[name],
            jobs=jobs,
            priority=priority,
            backfill_id=backfill,
            lost=tuple(lost[job.number] for job in jobs if job.number in lost),
        )
        for (name, priority, backfill), of_them in alike.items()
        for jobs in consecutive(of_them, lambda j: j.key.date, most=config.tables.dates_per_run)
    ]

    def order(run: TablesRun) -> tuple[Priority, dt.date, bool, bool]:
        name = run.source.name
        return run.priority, run.first, name not in read, run.source.joined_table is None

    return sorted(runs, key=order)


def tables_to_start(
    config: GardenerConfig,
    runs: Iterable[TablesRun],
    *,
    open_jobs: Mapping[JobKey, Job],
    unended: Mapping[str, int],
    now: dt.datetime,
) -> list[TablesRun]:
    """Return those of the runs to start now.

    A range that is not full waits for its neighbours, ``tables.gather`` at most; and it waits while
    the tables of its annotations are being made, so that one run makes its tables and the joins.
    Daily runs start at once: they wait for annotations when they come to the join.

    Args:
        config: Its ``tables``, and where the annotations are found.
        runs: In their order.
        open_jobs: Open jobs by key; among them those of ``read_by_runs``.
        unended: By source, runs that the sensor started and that have not ended.
        now: The time.
    """
    ready = [run for run in runs if _is_ready(config, run, open_jobs, now)]
    return within_bounds(ready, unended=unended)


def read_by_runs(config: GardenerConfig, runs: Iterable[TablesRun]) -> set[JobKey]:
    """Return the keys of the jobs that decide whether these runs start."""
    keys: set[JobKey] = set()
    for run in runs:
        keys.update(run.neighbours)
        if annotations := run.annotations(config):
            dates = {job.key.date for job in run.jobs} | {run.first - ONE_DAY}
            keys.update(job_key(annotations, date) for date in dates)
    return keys


def _is_ready(
    config: GardenerConfig, run: TablesRun, open_jobs: Mapping[JobKey, Job], now: dt.datetime
) -> bool:
    grows = any(
        key in open_jobs and open_jobs[key].state in BEFORE_PARSED for key in run.neighbours
    )
    return run.priority is Priority.DAILY or (
        (
            not grows
            or len(run.jobs) >= config.tables.dates_per_run
            or now - min(job.entered for job in run.jobs) >= config.tables.gather
        )
        and not _is_soon_joined(config, run, open_jobs, now)
    )


def _is_soon_joined(
    config: GardenerConfig, run: TablesRun, open_jobs: Mapping[JobKey, Job], now: dt.datetime
) -> bool:
    """Whether the joins wait for nothing but tables of annotations that are being made."""
    annotations = run.annotations(config)
    if annotations is None:
        return False
    awaited = [
        job
        for own in run.jobs
        for job in awaited_annotations(annotations, own.key.date, open_jobs, run.priority)
    ]
    return bool(awaited) and all(_is_soon_made(config, job, run.priority, now) for job in awaited)


def _is_soon_made(config: GardenerConfig, job: Job, priority: Priority, now: dt.datetime) -> bool:
    """Whether the tables of annotations are being made, or their run comes before these rows'."""
    if job.priority > priority:
        return False
    if job.state is JobState.POST_PROCESSING:
        return is_partition(config, job.key.date, now=now)
    return job.state not in BEFORE_PARSED and now - job.entered < ANNOTATIONS_TIMEOUT


class _RunOfSource(Protocol):
    @property
    def source(self) -> Source: ...
    @property
    def priority(self) -> Priority: ...


_Run = TypeVar("_Run", bound=_RunOfSource)


def within_bounds(runs: Iterable[_Run], *, unended: Mapping[str, int]) -> list[_Run]:
    """Return the first runs that fit ``RUNS_PER_TICK`` and, unless daily, the other bounds.

    Args:
        runs: In their order.
        unended: By source, runs that the sensor started and that have not ended.
    """
    others, of_source = 0, Counter(unended)
    chosen: list[_Run] = []
    for run in runs:
        if run.priority is not Priority.DAILY:
            if others == OTHERS_PER_TICK or of_source[run.source.name] >= SOURCE_RUNS:
                continue
            others += 1
            of_source[run.source.name] += 1
        chosen.append(run)
    return chosen[:RUNS_PER_TICK]


def with_joins(
    config: GardenerConfig,
    run: TablesRun,
    *,
    made: AbstractSet[dt.date],
    open_jobs: Mapping[JobKey, Job],
    now: dt.datetime,
) -> TablesRun:
    """Return the run, with its joins where each of its dates can be joined, or soon can.

    Else the sensor ``joins`` starts them when they can.

    Args:
        config: Where the annotations are found.
        run: A run to start.
        made: The dates whose annotations are in raw.
        open_jobs: Open jobs by key; among them those of the annotations.
        now: The time.
    """
    annotations = run.annotations(config)
    if annotations is None:
        return run
    awaited = {
        job.key.date: awaited_annotations(annotations, job.key.date, open_jobs, run.priority)
        for job in run.jobs
    }
    ready = all(
        all(_is_soon_made(config, job, run.priority, now) for job in jobs)
        and (date in made or job_key(annotations, date) in {job.key for job in jobs})
        for date, jobs in awaited.items()
    )
    return replace(run, joined=ready)


def awaited_annotations(
    annotations: Source, date: dt.date, open_jobs: Mapping[JobKey, Job], priority: Priority
) -> list[Job]:
    """Return the jobs of annotations that are about to change what the join of a date reads.

    Those of the day before are waited for only if they are as urgent as the join: a pass over
    history would keep a daily date waiting for days. They are joined again when they change.

    Args:
        annotations: The source that the rows are joined with.
        date: Of the join.
        open_jobs: Open jobs by key.
        priority: Of the join.
    """
    own = open_jobs.get(job_key(annotations, date))
    before = open_jobs.get(job_key(annotations, date - ONE_DAY))
    jobs = [job for job in (own, before) if job and is_pending(job)]
    return [job for job in jobs if job is own or job.priority <= priority]


def is_worth_waiting(jobs: Iterable[Job], *, now: dt.datetime) -> bool:
    """Whether a run that has come to its join waits for these annotations, which it lacks.

    It waits in its place in the queue, so not for long where their run has not begun.

    Args:
        jobs: Of ``awaited_annotations``.
        now: The time.
    """
    return all(
        job.state not in BEFORE_PARSED
        and now - job.entered
        < (
            ANNOTATIONS_START_TIMEOUT
            if job.state is JobState.POST_PROCESSING
            else ANNOTATIONS_TIMEOUT
        )
        for job in jobs
    )


def is_pending(job: Job | None) -> bool:
    """Whether the raw partition of a job will change."""
    return job is not None and job.state in BEFORE_RAW
