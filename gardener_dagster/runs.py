"""Runs of ``parse`` that schedules and sensors start: how they are asked for, and found again."""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from gardener_api.config import Source
from gardener_api.jobs import Priority
from gardener_dagster.graph import (
    PRIORITY_TAG,
    QUEUE_ORDER,
    QUEUE_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    parsed_key,
)
from gardener_dagster.partitions import date_of, dates_between

ENDED_BADLY = [DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
NOT_ENDED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


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
    all_tags = {QUEUE_TAG: QUEUE_ORDER[priority], **tags}
    if priority is not Priority.BACKFILL:
        all_tags[PRIORITY_TAG] = priority.name.lower()
    if first != last:
        all_tags |= {RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()}
    return dg.RunRequest(
        run_key=run_key,
        asset_selection=[parsed_key(source) for source in sources],
        partition_key=first.isoformat() if first == last else None,
        tags=all_tags,
    )


def unfinished(
    instance: dg.DagsterInstance, tags: Mapping[str, str]
) -> Iterator[tuple[str, dt.date]]:
    """The sources, by name, and dates of the runs of ``parse`` with these tags that go on."""
    for run in instance.get_runs(RunsFilter(tags=dict(tags), statuses=NOT_ENDED)):
        single = run.tags.get("dagster/partition", "")
        first, last = run.tags.get(RANGE_START_TAG, single), run.tags.get(RANGE_END_TAG, single)
        for key in run.asset_selection or ():
            for date in dates_between(date_of(first), date_of(last)) if first else ():
                yield "/".join(key.path[1:]), date
