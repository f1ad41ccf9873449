"""The sensor ``historical_pass``: parse all of history, date by date, then again.

The cursor stores the next chunk before its run is requested, so an interrupted tick requests the
same chunk again. When the run has ended, the sensor moves on to the next chunk. A run that ended
before it requested any job is repeated; dates that failed are not, in the same pass.
``planning.history`` plans the chunks.
"""

import datetime as dt

import dagster as dg
from dagster import RunsFilter

from gardener_api.config import GardenerConfig, Source
from gardener_api.jobs.job import Priority
from gardener_api.store.store import JobStore
from gardener_dagster.assets.keys import HISTORY_TAG, parsed_key
from gardener_dagster.assets.requesters import find_requester
from gardener_dagster.automation.run_requests import (
    NOT_ENDED,
    minimum_interval,
    parse_request,
    read_cursor,
)
from gardener_dagster.planning.history import Chunk, Place, begin, move_on

TRIES = 3
"""Maximum number of runs of a chunk, if each ends before it requests any job."""


def historical_pass_sensor(config: GardenerConfig) -> dg.SensorDefinition:
    """Build the sensor ``historical_pass``; it can be turned on and off in Dagster's UI."""
    interval = minimum_interval(config.monitor.polling_interval)

    @dg.sensor(
        name="historical_pass",
        target=dg.AssetSelection.assets(*map(parsed_key, config.sources)),
        minimum_interval_seconds=interval,
        default_status=(
            dg.DefaultSensorStatus.RUNNING
            if config.history.enabled
            else dg.DefaultSensorStatus.STOPPED
        ),
        description=(
            "Parses all of history, date by date, then again; behind daily jobs and backfills."
            " Its cursor is its place: an empty one begins a new pass."
        ),
    )
    def historical_pass(
        context: dg.SensorEvaluationContext, job_store: dg.ResourceParam[JobStore]
    ) -> dg.SensorResult:
        now = dt.datetime.now(dt.UTC)
        place = read_cursor(Place, context.cursor)
        return tick(config, place, context.instance, job_store, now=now)

    return historical_pass


def tick(
    config: GardenerConfig,
    place: Place | None,
    instance: dg.DagsterInstance,
    store: JobStore,
    *,
    now: dt.datetime,
) -> dg.SensorResult:
    """Request a run of the chunk, wait for it, or move on to the next chunk."""
    if place is None or place.chunk is None:
        following = begin(config, place, now=now)
        if following.chunk is None:
            return dg.SensorResult(skip_reason="no source has a history: all are daily_only")
        return _at(following)
    runs = instance.get_runs(RunsFilter(tags={HISTORY_TAG: place.part}))
    if any(run.status in NOT_ENDED for run in runs):
        return _at(place, "its run is in progress")
    requesters = {find_requester(run, instance.get_run_by_id) for run in runs}
    # There may be more runs than TRIES: Dagster's retries have the tags of the original run.
    if store.days.asked_by(requesters) or len(runs) >= TRIES:
        asked = {key for run in runs for key in run.asset_selection or ()}
        return _at(move_on(config, place, {"/".join(key.path[1:]) for key in asked}))
    sources = [s for s in config.sources if s.name in place.chunk.sources]
    if not sources or place.chunk.first < config.start_date:
        planned = f"{place.chunk.first} to {place.chunk.last} of {', '.join(place.chunk.sources)}"
        return _at(
            move_on(config, place, ()),
            f"next; {planned} was planned, which the configuration does not have any more"
            f" (start_date {config.start_date}, {len(config.sources)} sources)",
        )
    behind = store.days.waiting_for_tables(Priority.HISTORICAL)
    if behind >= config.history.jobs_per_run:
        return _at(place, f"waits for the tables of {behind} dates that are parsed")
    return _at(place, request=_request(place, place.chunk, sources, tries=len(runs)))


def _request(place: Place, chunk: Chunk, sources: list[Source], *, tries: int) -> dg.RunRequest:
    return parse_request(
        sources,
        chunk.first,
        chunk.last,
        run_key=f"{place.part}~{tries + 1}",
        priority=Priority.HISTORICAL,
        tags={HISTORY_TAG: place.part},
    )


def _at(place: Place, why: str = "next", request: dg.RunRequest | None = None) -> dg.SensorResult:
    chunk = place.chunk
    where = f"{chunk.first} to {chunk.last}" if chunk else "at its end"
    return dg.SensorResult(
        run_requests=[request] if request else [],
        skip_reason=None if request else f"pass {place.number}, {where}: {why}",
        cursor=place.model_dump_json(),
    )
