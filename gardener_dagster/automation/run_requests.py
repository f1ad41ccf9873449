"""What schedules and sensors share: how often they run, how they ask for and find runs."""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from pydantic import BaseModel, ValidationError

from gardener_api.config import Source
from gardener_api.jobs.job import Priority
from gardener_dagster.assets.keys import (
    BACKFILL_TAG,
    PARSE_TAG,
    PRIORITY_TAG,
    QUEUE_ORDER,
    QUEUE_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    parsed_key,
    tables_tag,
)
from gardener_dagster.assets.partitions import date_of
from gardener_dagster.planning.ranges import dates_between

ENDED_BADLY = [DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
Cursor = TypeVar("Cursor", bound=BaseModel)

RUNS_PER_TICK = 20
"""Maximum number of ``parse`` runs that a schedule or sensor requests per tick.

Dagster launches them one by one, so more would only lengthen the tick. The remaining ones are due
at the next tick.
"""
PARTITION_TAG = "dagster/partition"
NOT_ENDED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def minimum_interval(interval: dt.timedelta) -> int:
    """Return the ``minimum_interval_seconds`` that makes a sensor tick once per ``interval``.

    It is one second less than the interval. The daemon checks every 5 s which sensors are due, and
    a tick starts slightly after the check that triggers it: with exactly 5 s, every second check
    would come too early.
    """
    return max(1, round(interval.total_seconds()) - 1)


def parse_request(
    sources: Iterable[Source],
    first: dt.date,
    last: dt.date,
    *,
    run_key: str,
    priority: Priority,
    tags: Mapping[str, str],
) -> dg.RunRequest:
    """Request a run of ``parse`` for some sources and all dates from the first to the last."""
    all_tags = {PARSE_TAG: priority.name.lower(), **tags}
    if priority is not Priority.BACKFILL:
        all_tags[PRIORITY_TAG] = priority.name.lower()
    return _run_request(
        [parsed_key(source) for source in sources],
        first,
        last,
        run_key=run_key,
        priority=priority,
        tags=all_tags,
    )


def tables_request(
    source: Source,
    keys: Sequence[dg.AssetKey],
    first: dt.date,
    last: dt.date,
    *,
    run_key: str,
    priority: Priority,
    backfill_id: str | None,
    tags: Mapping[str, str],
) -> dg.RunRequest:
    """Request a run that makes tables of a source, for all dates from the first to the last.

    Args:
        source: The source.
        keys: The assets of its tables.
        first: The first date.
        last: The last date.
        run_key: The run's idempotency key.
        priority: The run's priority in the queue.
        backfill_id: The backfill that the run belongs to: its partitions count for the backfill,
            and it is cancelled with it.
        tags: Additional tags of the run.
    """
    all_tags = {tables_tag({QUEUE_TAG: QUEUE_ORDER[priority]}): source.experiment, **tags}
    if backfill_id:
        all_tags[BACKFILL_TAG] = backfill_id
    return _run_request(keys, first, last, run_key=run_key, priority=priority, tags=all_tags)


def _run_request(
    keys: Sequence[dg.AssetKey],
    first: dt.date,
    last: dt.date,
    *,
    run_key: str,
    priority: Priority,
    tags: Mapping[str, str],
) -> dg.RunRequest:
    all_tags = {QUEUE_TAG: QUEUE_ORDER[priority], **tags}
    if first != last:
        all_tags |= {RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()}
    return dg.RunRequest(
        run_key=run_key,
        asset_selection=list(keys),
        partition_key=first.isoformat() if first == last else None,
        tags=all_tags,
    )


def read_cursor(model: type[Cursor], text: str | None) -> Cursor | None:
    """Read a sensor's cursor, which a person can set in Dagster's UI.

    Raises:
        ValueError: The text is not a cursor of that sensor; the message says what to do.
    """
    if not text:
        return None
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'all of it'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise ValueError(
            f"the cursor {text[:200]!r} cannot be read: {faults}. What to do: clear the sensor's"
            " cursor in Dagster's UI; it then begins anew"
        ) from error


def unfinished(
    instance: dg.DagsterInstance, tags: Mapping[str, str]
) -> Iterator[tuple[str, dt.date]]:
    """Yield source name and date for each partition of unfinished ``parse`` runs with these tags.

    Skips runs whose tags contain no valid dates, as when a person wrote them: they fail anyway.
    """
    for run in instance.get_runs(RunsFilter(tags=dict(tags), statuses=NOT_ENDED)):
        for key in run.asset_selection or ():
            for date in dates_of(run.tags):
                yield "/".join(key.path[1:]), date


def dates_of(tags: Mapping[str, str]) -> list[dt.date]:
    """Return the dates in a run's partition tags; none if the tags contain no valid dates."""
    single = tags.get(PARTITION_TAG, "")
    first, last = tags.get(RANGE_START_TAG, single), tags.get(RANGE_END_TAG, single)
    try:
        return dates_between(date_of(first), date_of(last))
    except ValueError:
        return []
