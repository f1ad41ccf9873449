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
    """Return the sources to plan, with their parse, or with their tables if ``tables_only``."""
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
    """Return the tables that exist once a date is made: raw, and joined if there is one."""
    return (source.raw_table, *([source.joined_table] if source.joined_table else []))


def read_records(
    store: JobStore, sources: Iterable[Source], dates: Sequence[dt.date]
) -> dict[str, Records]:
    """Read the records of each source's dates and of nearby dates, by source name.

    Args:
        store: The job store.
        sources: The sources.
        dates: The requested dates, in any order; at least one.
    """
    first, last = min(dates), max(dates)
    # Stay within the dates that Python can represent.
    first = max(first, dt.date.min + _NEAR) - _NEAR
    last = min(last, dt.date.max - _NEAR) + _NEAR
    return {
        source.name: store.plans.records(
            source.bucket, source.name, made_tables(source), first, last
        )
        for source in sources
    }


def read_capacity(store: JobStore, *, now: dt.datetime) -> Capacity:
    """Read the number of active parsers and of queued jobs."""
    parsers = [p for p in store.overview.parsers() if p.held or p.called >= now - _ONE_DAY]
    return Capacity(parsers=len(parsers), queued=store.plans.queued(Priority.BACKFILL))


def targets_of(
    sources: Iterable[Source], backfills: Sequence[RunningBackfill]
) -> dict[str, Targets]:
    """Return the dates that unfinished backfills make, by source name."""
    targets: dict[str, Targets] = {}
    for source in sources:
        keys = {tuple(key.path) for key in (parsed_key(source), *table_keys(source))}
        started: dict[dt.date, dt.datetime] = {}
        for backfill in sorted(backfills, key=lambda each: each.started):
            if keys & backfill.assets:
                started |= dict.fromkeys(backfill.dates, backfill.started)
        targets[source.name] = started
    return targets
