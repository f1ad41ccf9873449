"""Which runs are due: pure functions over the facts of the job store and of Dagster.

No I/O, no clock, no Dagster: the sensors fetch the facts and carry the plans out. All plans are
level-triggered: they follow from what is, not from what just happened, so nothing is lost by a tick
that was missed; run keys see to it that nothing is started twice.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from gardener_api.config import GardenerConfig, Source
from gardener_api.jobs import Job, JobKey, JobState, Parsed, Priority
from gardener_api.tables import DueJoin

BEFORE_RAW = frozenset(
    {
        JobState.QUEUED,
        JobState.INIT,
        JobState.PARSING,
        JobState.POST_PROCESSING,
        JobState.LOADING,
        JobState.DEDUPLICATING,
        JobState.COPYING,
        JobState.DELETING,
    }
)
"""States of a job whose raw partition is still on its way."""


@dataclass(frozen=True, kw_only=True)
class TablesRun:
    """Load, dedup, copy and delete of one date, with the join where it is ready."""

    job: Job
    source: Source
    joined: bool

    @property
    def run_key(self) -> str:
        """The job's ID, which names the attempt: a re-parse is another run."""
        return self.job.id


@dataclass(frozen=True, kw_only=True)
class JoinRun:
    """A join of one date, as urgent as the job that waits for it.

    Where none waits, as with newer annotations of a date that was complete, it is a backfill's.
    """

    source: Source
    due: DueJoin
    priority: Priority

    @property
    def run_key(self) -> str:
        """Names the versions of what is read, so the same inputs are never joined twice.

        And the version that is replaced: a slow join of older inputs may have come in after one of
        these, and then these are due once more.
        """
        inputs = self.due.inputs
        return (
            f"{self.source.joined_table}${self.due.date:%Y%m%d}~raw{inputs.raw}"
            f".annotations{inputs.annotations}.before{inputs.annotations_before}"
            f".over{self.due.replaces}"
        )


@dataclass(frozen=True, kw_only=True)
class LostRun:
    """A job whose table run ended without saying so in the store."""

    job: Job
    run_id: str
    status: str

    @property
    def reason(self) -> str:
        """What to write into the job."""
        return (
            f"Dagster run {self.run_id} of its tables ended {self.status} in state"
            f" {self.job.state}: read its log, then re-execute it"
        )


def tables_due(
    config: GardenerConfig,
    parsed: Iterable[Parsed],
    *,
    joins_ready: AbstractSet[JobKey],
) -> list[TablesRun]:
    """The table runs to start.

    Args:
        config: Jobs of sources it does not have any more are left alone.
        parsed: The jobs whose parse is done and whose tables nobody began, but for those whose
            tables an unfinished backfill is going to make.
        joins_ready: Jobs whose annotations are there and not about to change.

    Returns:
        In the order in which to start them: of a date, what the joins of others read comes first.
    """
    sources = {source.name: source for source in config.sources}
    read = {f"{s.experiment}/{s.annotations}" for s in config.sources if s.joined_table}

    def order(item: Parsed) -> tuple[int, dt.date, bool]:
        return item.job.priority, item.job.key.date, item.job.key.source not in read

    return [
        TablesRun(
            job=item.job,
            source=sources[item.job.key.source],
            joined=item.job.key in joins_ready,
        )
        for item in sorted(parsed, key=order)
        if item.job.key.source in sources
    ]


def annotation_keys(config: GardenerConfig, job_keys: Iterable[JobKey]) -> dict[JobKey, JobKey]:
    """For each job that is joined, the job of the annotations of its date."""
    sources = {source.name: source for source in config.sources}
    keys: dict[JobKey, JobKey] = {}
    for key in job_keys:
        source = sources.get(key.source)
        annotations = config.annotations_of(source) if source and source.joined_table else None
        if annotations:
            keys[key] = job_key(annotations, key.date)
    return keys


def job_key(source: Source, date: dt.date) -> JobKey:
    """The job of a source on a date."""
    return JobKey(
        bucket=source.bucket, experiment=source.experiment, datatype=source.datatype, date=date
    )


def joins_ready(
    annotations: Mapping[JobKey, JobKey],
    *,
    made: AbstractSet[JobKey],
    open_jobs: Mapping[JobKey, Job],
) -> frozenset[JobKey]:
    """The jobs whose join can follow in the run of their tables.

    Args:
        annotations: For each job, the job of its annotations.
        made: Annotation jobs whose raw partition was made.
        open_jobs: Open jobs by key.
    """
    return frozenset(
        key
        for key, annotation in annotations.items()
        if annotation in made and not _on_its_way(open_jobs.get(annotation))
    )


def announcements_due(unannounced: Iterable[Parsed], *, live_runs: AbstractSet[str]) -> list[Job]:
    """Parsed jobs that no run will report to Dagster: the sensor does."""
    return [
        item.job
        for item in unannounced
        if not any(request.run_id in live_runs for request in item.requests)
    ]


def lost_runs(jobs: Iterable[tuple[Job, str]], *, ended: Mapping[str, str]) -> list[LostRun]:
    """Jobs whose table run is over and left them in the middle.

    Args:
        jobs: Jobs with the id of the run that has (or had) their tables.
        ended: Status of the runs that ended without success, by id.
    """
    return [
        LostRun(job=job, run_id=run_id, status=ended[run_id])
        for job, run_id in jobs
        if run_id in ended
    ]


def joins_to_start(
    config: GardenerConfig,
    source: Source,
    due: Sequence[DueJoin],
    *,
    open_jobs: Mapping[JobKey, Job],
) -> list[JoinRun]:
    """The joins to start of one source.

    Args:
        config: Where the annotations are found.
        source: A source with a joined table.
        due: Its dates whose inputs are newer than their join, but for those whose joined partition
            an unfinished backfill is going to make.
        open_jobs: Open jobs by key: what is still on its way is waited for.
    """
    annotations = config.annotations_of(source)
    if annotations is None:
        return []
    runs = []
    for item in due:
        own = open_jobs.get(job_key(source, item.date))
        theirs = open_jobs.get(job_key(annotations, item.date))
        if not _on_its_way(own) and not _on_its_way(theirs):
            priority = own.priority if own else Priority.BACKFILL
            runs.append(JoinRun(source=source, due=item, priority=priority))
    return runs


def _on_its_way(job: Job | None) -> bool:
    return job is not None and job.state in BEFORE_RAW
