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
"""The most runs of ``parse`` that one tick of a schedule or sensor asks for.

Dagster launches them one by one, so more would only make the tick long. What is left over is due at
the next tick.
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

    One second less than the interval. The daemon looks every 5 s which sensors are due and compares
    with the start of the last tick, which is slightly later than the look that started it: with
    exactly 5 s, every second look comes too early.
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
    """Asks for a run of ``parse`` over some sources and all dates from the first to the last."""
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
    """Asks for a run that makes some tables of a source, of all dates from the first to the last.

    Args:
        source: The source.
        keys: The assets of its tables.
        first: The first date.
        last: The last one.
        run_key: The run's idempotency key.
        priority: Its place in the queue.
        backfill_id: The backfill that it works for: what it makes counts for that, and is cancelled
            with it.
        tags: Its tags besides those.
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
        ValueError: It is none of that sensor; the message says what to do.
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
    """The sources, by name, and dates of the runs of ``parse`` with these tags that have not ended.

    A run whose tags name no dates, since a person wrote them, is left out: it fails anyway.
    """
    for run in instance.get_runs(RunsFilter(tags=dict(tags), statuses=NOT_ENDED)):
        for key in run.asset_selection or ():
            for date in dates_of(run.tags):
                yield "/".join(key.path[1:]), date


def dates_of(tags: Mapping[str, str]) -> list[dt.date]:
    """The dates that a run's tags say it makes; none if they name no dates."""
    single = tags.get(PARTITION_TAG, "")
    first, last = tags.get(RANGE_START_TAG, single), tags.get(RANGE_END_TAG, single)
    try:
        return dates_between(date_of(first), date_of(last))
    except ValueError:
        return []
