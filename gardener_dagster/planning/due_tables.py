"""Which runs of tables are due: pure functions over the facts of the job store and of Dagster.

No I/O, no clock, no Dagster: the sensors read the facts and start the planned runs. All plans are
level-triggered: they depend on the current state, not on events, so a missed tick loses nothing.
``due_joins`` decides which joins are due.
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
"""States of a job before its parse is done."""
BEFORE_RAW = BEFORE_PARSED | {
    JobState.POST_PROCESSING,
    JobState.LOADING,
    JobState.DEDUPLICATING,
    JobState.COPYING,
    JobState.DELETING,
}
"""States of a job whose raw partition will change."""

RUNS_PER_TICK = 16
"""Maximum number of runs that a sensor requests per tick: Dagster submits them one by one."""
OTHERS_PER_TICK = 6
"""Maximum number of non-daily runs per tick. Submitting a run takes seconds under load: short ticks
let new daily dates start soon."""
SOURCE_RUNS = 4
"""Maximum number of unfinished runs per source; daily runs are exempt. Enough for the active runs
and a short queue. Other due dates wait in the store, where urgent dates can overtake them, ranges
can still grow, and annotations do not get far ahead of the rows that they are joined to."""

ANNOTATIONS_TIMEOUT = dt.timedelta(minutes=10)
"""How long a join waits for annotations whose tables are being made, measured from the start of
their current stage."""
ANNOTATIONS_START_TIMEOUT = dt.timedelta(minutes=2)
"""How long a run at its join stage waits for the run of its annotations to start."""


@dataclass(frozen=True, kw_only=True)
class TablesRun:
    """One run of the tables of a source: load to delete, and the join if its inputs are ready.

    Attributes:
        source: The source.
        jobs: The jobs, one per date; the dates are consecutive.
        priority: Priority of all its jobs.
        backfill_id: The unfinished whole-chain backfill that requested all its jobs.
        joined: Whether the run also makes the joined table.
        lost: IDs of the last lost run of each job that has one.
    """

    source: Source
    jobs: tuple[Job, ...]
    priority: Priority
    backfill_id: str | None = None
    joined: bool = False
    lost: tuple[str, ...] = ()

    @property
    def first(self) -> dt.date:
        """The first date."""
        return self.jobs[0].key.date

    @property
    def last(self) -> dt.date:
        """The last date."""
        return self.jobs[-1].key.date

    @property
    def title(self) -> str:
        """The ID of a single job; of a range, ``<ID of the first job>..<last date>``."""
        if len(self.jobs) == 1:
            return self.jobs[0].id
        return f"{self.jobs[0].id}..{self.last:%Y%m%d}"

    @property
    def run_key(self) -> str:
        """Idempotency key from jobs, attempts and lost runs: repeated work gets a new key."""
        [job, *others] = self.jobs
        if not others and not self.lost and job.state is JobState.POST_PROCESSING:
            return job.id
        names = [f"{job.id} {job.state}" for job in self.jobs]
        return f"{self.title}~{digest([*names, *self.lost])}"

    def annotations(self, config: GardenerConfig) -> Source | None:
        """Return the source of the annotations; ``None`` if there is no joined table."""
        return config.annotations_of(self.source) if self.source.joined_table else None

    @property
    def neighbours(self) -> tuple[JobKey, JobKey]:
        """Keys of the jobs of the day before the first date and the day after the last."""
        key = self.jobs[0].key
        before, after = self.first - ONE_DAY, self.last + ONE_DAY
        return replace(key, date=before), replace(key, date=after)


def digest(names: Iterable[str]) -> str:
    """Return a hash of the names in this order: the first 16 hex digits of their SHA-256."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def job_key(source: Source, date: dt.date) -> JobKey:
    """Return the job key of a source and date."""
    return JobKey(
        bucket=source.bucket, experiment=source.experiment, datatype=source.datatype, date=date
    )


def is_partition(config: GardenerConfig, date: dt.date, *, now: dt.datetime) -> bool:
    """Whether Dagster has a partition for the date: from ``start_date`` to yesterday, UTC."""
    return config.start_date <= date < now.astimezone(dt.UTC).date()


def is_cancelled(requests: Iterable[Request], cancelled: AbstractSet[str]) -> bool:
    """Whether only cancelled whole-chain backfills requested a job.

    Args:
        requests: All requests for the job, including withdrawn ones.
        cancelled: IDs of the cancelled backfills.
    """
    theirs = wanted = False
    for request in requests:
        if request.covers_tables and request.backfill_id in cancelled:
            theirs = True
        elif request.withdrawn is None:
            wanted = True
    return theirs and not wanted


def backfill_of(requests: Iterable[Request], requested: AbstractSet[str]) -> str | None:
    """Return the ID of the whole-chain backfill whose tag the job's table runs get.

    Args:
        requests: The job's requests, the earliest first.
        requested: IDs of the backfills that are neither over nor cancelled.
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
    """Return the table runs that are not started yet, in the order in which to start them.

    They are sorted by priority and first date; then annotations first, then sources with a join.

    Args:
        config: The configuration. Jobs of other sources, and of dates without a partition, are
            skipped.
        parsed: Jobs whose parse is done and whose raw partition is not made.
        taken: Source names and dates that unfinished runs make.
        requested: IDs of the backfills that are neither over nor cancelled.
        lost: ID of the last lost run of a job, by the job's number.
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

    A range that is not full waits up to ``tables.gather`` for its neighbours. A range also waits
    while the tables of its annotations are being made, so that one run makes its tables and joins.
    Daily runs start at once and wait for annotations at the join stage.

    Args:
        config: The configuration.
        runs: The runs, in the order of ``tables_due``.
        open_jobs: Open jobs by key, including those of ``read_by_runs``.
        unended: By source, number of unfinished runs that the sensor started.
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
    """Whether the joins wait only for annotations whose tables will be made soon."""
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
    """Whether the tables of annotations are being made, or their run starts before this one."""
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
    """Return the first runs within the limits; ``RUNS_PER_TICK`` alone limits daily runs.

    Args:
        runs: The runs, in the order in which to start them.
        unended: By source, number of unfinished runs that the sensor started.
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
    """Return the run, including its joins if all of its dates can be joined now or soon.

    Otherwise the sensor ``joins`` starts the joins later.

    Args:
        config: The configuration; names the source's annotations.
        run: A run to start.
        made: Dates whose annotations are in raw.
        open_jobs: Open jobs by key, including those of the annotations.
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
    """Return the unfinished jobs of annotations that the join of a date must wait for.

    The job of the day before counts only if it is at least as urgent as the join: a historical pass
    would delay a daily date for days. The date is joined again when those annotations change.

    Args:
        annotations: The source of the annotations.
        date: Date of the join.
        open_jobs: Open jobs by key.
        priority: Priority of the join.
    """
    own = open_jobs.get(job_key(annotations, date))
    before = open_jobs.get(job_key(annotations, date - ONE_DAY))
    jobs = [job for job in (own, before) if job and is_pending(job)]
    return [job for job in jobs if job is own or job.priority <= priority]


def is_worth_waiting(jobs: Iterable[Job], *, now: dt.datetime) -> bool:
    """Whether a run at its join stage waits for these missing annotations.

    A waiting run occupies a run slot, so the limit is short while the other run has not started.

    Args:
        jobs: The result of ``awaited_annotations``.
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
    """Whether a job will still change its raw partition."""
    return job is not None and job.state in BEFORE_RAW
