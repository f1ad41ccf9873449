"""The sensor ``late_archives``: list recent dates, and parse those again that got archives.

``planning.late`` decides which dates are due.
"""

import datetime as dt
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
from dagster import RunsFilter

from gardener_api.archive import ArchiveError, ArchiveListing, list_archives
from gardener_api.config import GardenerConfig, Source
from gardener_api.jobs.job import JobKey, Priority
from gardener_api.store.store import JobStore
from gardener_dagster.assets.keys import parsed_key
from gardener_dagster.automation.run_requests import (
    NOT_ENDED,
    RUNS_PER_TICK,
    minimum_interval,
    parse_request,
    read_cursor,
)
from gardener_dagster.planning.late import (
    Looks,
    after_look,
    find_late,
    late_due,
    looked_at,
    recent_keys,
)
from gardener_dagster.resources import GCSResource

LISTINGS_AT_ONCE = 8
SENSOR = "late_archives"
LATE_TAG = "gardener/late"
"""Tag of the runs that this sensor requests: the job key and the late archives' fingerprint."""


def late_archives_sensor(config: GardenerConfig) -> dg.SensorDefinition:
    """Build the sensor ``late_archives``."""
    interval = minimum_interval(config.late_archives.interval)

    @dg.sensor(
        name=SENSOR,
        target=dg.AssetSelection.assets(*map(parsed_key, config.sources)),
        minimum_interval_seconds=interval,
        default_status=(
            dg.DefaultSensorStatus.RUNNING
            if config.late_archives.days
            else dg.DefaultSensorStatus.STOPPED
        ),
        description=(
            f"Parses a date of the last {config.late_archives.days} again if archives came after"
            " its parse, once two looks found the same ones."
        ),
    )
    def late_archives(
        context: dg.SensorEvaluationContext,
        job_store: dg.ResourceParam[JobStore],
        gcs: GCSResource,
    ) -> dg.SensorResult:
        now = dt.datetime.now(dt.UTC)
        before = read_cursor(Looks, context.cursor) or Looks()
        jobs = job_store.days.latest(recent_keys(config, now=now))
        seen_until = looked_at(config, jobs, now=now)
        listings, errors = list_all(gcs, config, list(seen_until))
        if errors and not listings:
            raise errors[0]
        for error in errors:  # retried at the next tick; the other dates need not wait
            context.log.error(str(error))
        late = find_late(seen_until, listings)
        for item in late:
            context.log.info(str(item))
        due = late_due(late, before, in_progress=_in_progress(context.instance))
        ask = due[:RUNS_PER_TICK]
        sources = {source.name: source for source in config.sources}
        return dg.SensorResult(
            run_requests=[
                parse_request(
                    [sources[item.key.source]],
                    item.key.date,
                    item.key.date,
                    run_key=f"late/{item.name}~{before.asked.get(item.name, 0) + 1}",
                    priority=Priority.BACKFILL,
                    tags={LATE_TAG: item.name},
                )
                for item in ask
            ],
            skip_reason=None if ask else f"{len(late)} dates with late archives, none to ask for",
            cursor=after_look(late, before, ask).model_dump_json(),
        )

    return late_archives


def _in_progress(instance: dg.DagsterInstance) -> set[str]:
    """Return ``Late.name`` of the dates that unfinished runs of this sensor parse."""
    runs = instance.get_runs(RunsFilter(tags={"dagster/sensor_name": SENSOR}, statuses=NOT_ENDED))
    return {run.tags.get(LATE_TAG, "") for run in runs}


def list_all(
    gcs: GCSResource, config: GardenerConfig, keys: Sequence[JobKey]
) -> tuple[dict[JobKey, ArchiveListing], list[ArchiveError]]:
    """List the archives of each key; return the listings, and the errors of the other keys."""
    if not keys:
        return {}, []  # skips the client, which takes seconds to import
    client = gcs.client
    sources: dict[str, Source] = {source.name: source for source in config.sources}

    def look(key: JobKey) -> ArchiveListing | ArchiveError:
        try:
            return list_archives(client, key.bucket, key.prefix, sources[key.source].filter)
        except ArchiveError as error:  # returned, so that the other keys are listed
            return error

    listings: dict[JobKey, ArchiveListing] = {}
    errors: list[ArchiveError] = []
    with ThreadPoolExecutor(LISTINGS_AT_ONCE, thread_name_prefix="list") as pool:
        for key, result in zip(keys, pool.map(look, keys), strict=True):
            if isinstance(result, ArchiveError):
                errors.append(result)
            else:
                listings[key] = result
    return listings, errors
