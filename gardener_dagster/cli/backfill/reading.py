"""What a backfill from the command line is planned and estimated from, read from the job store."""

import datetime as dt
from collections.abc import Iterable, Sequence

from gardener_api.config import Source
from gardener_api.jobs.job import Priority
from gardener_api.store.store import JobStore
from gardener_dagster.assets.keys import parsed_key, table_keys
from gardener_dagster.dagster_client import RunningBackfill
from gardener_dagster.planning.backfill_costs import NEIGHBOUR_DAYS, Capacity
from gardener_dagster.planning.backfills import Records, Targets, Wanted

_NEAR = dt.timedelta(days=NEIGHBOUR_DAYS)
_ONE_DAY = dt.timedelta(days=1)


def wanted_of(sources: Iterable[Source], *, tables_only: bool) -> list[Wanted]:
    """The sources as a plan sees them; the tables follow what is parsed, or are asked for alone."""
    return [
        Wanted(
            name=source.name,
            assets=tuple(
                tuple(key.path)
                for key in (table_keys(source) if tables_only else [parsed_key(source)])
            ),
            tables=made_tables(source),
        )
        for source in sources
    ]


def made_tables(source: Source) -> tuple[str, ...]:
    """The tables that are there once a date of a source is made: raw, and joined if it has one."""
    return (source.raw_table, *([source.joined_table] if source.joined_table else []))


def read_records(
    store: JobStore, sources: Iterable[Source], dates: Sequence[dt.date]
) -> dict[str, Records]:
    """What is known of each source's dates and of those near them, by the name of the source.

    Args:
        store: The job store.
        sources: The sources.
        dates: The dates asked for, in any order; one at least.
    """
    first, last = min(dates), max(dates)
    # Where the calendar ends there is no date near.
    first = max(first, dt.date.min + _NEAR) - _NEAR
    last = min(last, dt.date.max - _NEAR) + _NEAR
    return {
        source.name: store.plans.records(
            source.bucket, source.name, made_tables(source), first, last
        )
        for source in sources
    }


def read_capacity(store: JobStore, *, now: dt.datetime) -> Capacity:
    """What parsers have to do already, and how many there are."""
    parsers = [p for p in store.overview.parsers() if p.held or p.called >= now - _ONE_DAY]
    return Capacity(parsers=len(parsers), queued=store.plans.queued(Priority.BACKFILL))


def targets_of(
    sources: Iterable[Source], backfills: Sequence[RunningBackfill]
) -> dict[str, Targets]:
    """The dates of each source that unfinished backfills make, by the name of the source."""
    targets: dict[str, Targets] = {}
    for source in sources:
        keys = {tuple(key.path) for key in (parsed_key(source), *table_keys(source))}
        started: dict[dt.date, dt.datetime] = {}
        for backfill in sorted(backfills, key=lambda each: each.started):
            if keys & backfill.assets:
                started |= dict.fromkeys(backfill.dates, backfill.started)
        targets[source.name] = started
    return targets
