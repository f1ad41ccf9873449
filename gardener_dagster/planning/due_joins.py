"""Which joins are due: pure, as ``due_tables``."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from gardener_api.config import GardenerConfig, Source
from gardener_api.jobs.job import ENDED, Job, JobKey, Priority
from gardener_api.store.tables.table_versions import DueJoin
from gardener_dagster.planning.due_tables import (
    awaited_annotations,
    digest,
    is_partition,
    is_pending,
    job_key,
)
from gardener_dagster.planning.ranges import ONE_DAY, consecutive


@dataclass(frozen=True, kw_only=True)
class JoinRun:
    """One run of the joins of a source on consecutive dates.

    Attributes:
        source: A source with a joined table.
        due: The due joins, one per date.
        priority: Priority of the jobs that wait for the joins; ``BACKFILL`` if none waits because
            the annotations of a complete date changed.
        backfill_id: The unfinished whole-chain backfill that requested all the jobs.
    """

    source: Source
    due: tuple[DueJoin, ...]
    priority: Priority
    backfill_id: str | None = None

    @property
    def first(self) -> dt.date:
        """The first date."""
        return self.due[0].date

    @property
    def last(self) -> dt.date:
        """The last date."""
        return self.due[-1].date

    @property
    def run_key(self) -> str:
        """Idempotency key from the versions of the inputs: the same inputs are joined only once.

        It includes the version of the joined partition that is replaced: if a slow join of older
        inputs overwrites a newer one, the newer inputs must be joined again.
        """
        if len(self.due) == 1:
            return self._key(self.due[0])
        names = digest(map(self._key, self.due))
        return f"{self.source.joined_table}${self.first:%Y%m%d}..{self.last:%Y%m%d}~{names}"

    def _key(self, due: DueJoin) -> str:
        inputs = due.inputs
        return (
            f"{self.source.joined_table}${due.date:%Y%m%d}~raw{inputs.raw}"
            f".annotations{inputs.annotations}.before{inputs.annotations_before}"
            f".over{due.replaces}"
        )


def read_by_joins(source: Source, annotations: Source, due: Iterable[DueJoin]) -> set[JobKey]:
    """Return the keys of the jobs of these dates and of the days before and after."""
    dates = {item.date + n * ONE_DAY for item in due for n in (-1, 0, 1)}
    return {job_key(each, date) for each in (source, annotations) for date in dates}


def joins_to_start(
    config: GardenerConfig,
    source: Source,
    due: Iterable[DueJoin],
    *,
    latest: Mapping[JobKey, Job],
    left_out: AbstractSet[dt.date],
    backfills: Mapping[dt.date, str],
    now: dt.datetime,
) -> list[JoinRun]:
    """Return the joins of one source to start, sorted by priority, then by first date.

    Args:
        config: The configuration; names the source's annotations.
        source: A source with a joined table.
        due: Dates whose inputs changed since their last join, without those that unfinished runs
            join. Dates without a Dagster partition are ignored.
        latest: The newest job of each key of ``read_by_joins``; joins wait for pending inputs.
        left_out: Dates to skip: a backfill of tables alone joins them, or the backfill that
            requested them was cancelled.
        backfills: By date, the whole-chain backfill whose tag the run gets.
        now: The time.
    """
    annotations = config.annotations_of(source)
    if annotations is None:
        return []
    open_jobs = {key: job for key, job in latest.items() if job.state not in ENDED}
    alike: dict[tuple[Priority, str | None], list[DueJoin]] = defaultdict(list)
    for item in due:
        own = open_jobs.get(job_key(source, item.date))
        priority = own.priority if own else Priority.BACKFILL
        if (
            item.date not in left_out
            and is_partition(config, item.date, now=now)
            and not is_pending(own)
            and not awaited_annotations(annotations, item.date, open_jobs, priority)
        ):
            alike[priority, backfills.get(item.date)].append(item)
    runs = [
        JoinRun(source=source, due=some, priority=priority, backfill_id=backfill)
        for (priority, backfill), items in alike.items()
        for some in consecutive(items, lambda d: d.date, most=config.tables.dates_per_run)
    ]
    ready = [run for run in runs if _is_ready(config, run, annotations, open_jobs, now)]
    return sorted(ready, key=lambda run: (run.priority, run.first))


def _is_ready(
    config: GardenerConfig,
    run: JoinRun,
    annotations: Source,
    open_jobs: Mapping[JobKey, Job],
    now: dt.datetime,
) -> bool:
    """Whether a run is daily, full, cannot grow, or has waited for ``tables.gather``."""
    grows = any(
        is_pending(open_jobs.get(job_key(each, date)))
        for each in (run.source, annotations)
        for date in (run.first - ONE_DAY, run.last + ONE_DAY)
    )
    return (
        run.priority is Priority.DAILY
        or not grows
        or len(run.due) >= config.tables.dates_per_run
        or any(item.since is None for item in run.due)
        or now - min(i.since for i in run.due if i.since) >= config.tables.gather
    )
