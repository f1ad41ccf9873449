"""The pass over all of history: a pure plan of what comes next, and the sensor that carries it out.

A pass takes every date of every source that is not ``daily_only`` once, in chunks: consecutive
dates of the same sources, one run of ``parse`` each. The chunk that is next is kept in the
sensor's cursor before it is asked for, so it is the same one whatever comes in between; when its
run has ended, the sources' places move on. A run that was lost before it asked for any job is
tried again; a date that failed is not, in that pass.
"""

import datetime as dt
from collections.abc import Collection

import dagster as dg
from dagster import RunsFilter
from pydantic import BaseModel, ConfigDict

from gardener_api.config import GardenerConfig, Source
from gardener_api.jobs import Priority
from gardener_api.store import JobStore
from gardener_dagster.daily import ONE_DAY
from gardener_dagster.graph import HISTORY_TAG, parsed_key, requester_of
from gardener_dagster.runs import NOT_ENDED, parse_request
from gardener_dagster.ticks import seconds_between

TRIES = 3
"""Runs for a chunk, where each was lost before it could ask for anything."""


class Chunk(BaseModel):
    """What one run asks for."""

    model_config = ConfigDict(frozen=True)

    first: dt.date
    last: dt.date
    sources: tuple[str, ...]


class Place(BaseModel):
    """How far the passes have come: the sensor's cursor.

    Attributes:
        number: Of the pass, from 1.
        began: When it did; it goes to the day before.
        next: For each source, by name, the first date that it still has to do. Kept also for a
            source that the configuration does not have at the time.
        chunk: What is asked for, or will be next.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    began: dt.datetime
    next: dict[str, dt.date]
    chunk: Chunk | None

    @property
    def part(self) -> str:
        """What its runs are known by: no other chunk of any pass has it."""
        if self.chunk is None:
            return ""
        first, last, names = self.chunk.first, self.chunk.last, "+".join(self.chunk.sources)
        return f"{self.number}/{self.began:%Y%m%dT%H%M%S}/{first}..{last}/{names}"


def span(config: GardenerConfig, source: Source, began: dt.datetime) -> tuple[dt.date, dt.date]:
    """The first and last date of a source in a pass; no date lies between if it takes no part."""
    last = began.date() - ONE_DAY
    first = config.start_date
    if not source.full_history:
        first = max(first, began.date() - config.history.recent_days * ONE_DAY)
    return (last + ONE_DAY if source.daily_only else first), last


def begin(config: GardenerConfig, place: Place | None, *, now: dt.datetime) -> Place:
    """The next pass, at its first chunk."""
    number = place.number + 1 if place else 1
    return _with_chunk(config, Place(number=number, began=now, next={}, chunk=None))


def move_on(config: GardenerConfig, place: Place, done: Collection[str]) -> Place:
    """The place after its chunk, at the chunk that follows; none if the pass is over.

    Args:
        config: As it is now: sources may have come or gone meanwhile.
        place: One with a chunk.
        done: The sources that the chunk's run asked for.
    """
    if place.chunk is None:
        raise ValueError(f"pass {place.number} is over: expected a place with a chunk")
    following = place.chunk.last + ONE_DAY
    moved = dict.fromkeys((s for s in place.chunk.sources if s in done), following)
    return _with_chunk(config, place.model_copy(update={"next": place.next | moved}))


def _with_chunk(config: GardenerConfig, place: Place) -> Place:
    """The earliest dates that any source has left, of all that are there.

    So the sources go through history side by side, annotations with what they are joined to; one
    that was added in the middle of a pass catches up with the others first.
    """
    left: dict[str, tuple[dt.date, dt.date]] = {}
    for source in config.sources:
        first, last = span(config, source, place.began)
        first = max(first, place.next.get(source.name, first))
        if first <= last:
            left[source.name] = first, last
    if not left:
        return place.model_copy(update={"chunk": None})
    first = min(first for first, _ in left.values())
    sources = tuple(name for name, (start, _) in left.items() if start == first)
    days = max(1, config.history.jobs_per_run // len(sources))
    ends = [first + (days - 1) * ONE_DAY, *(last for _, last in left.values())]
    ends += [start - ONE_DAY for start, _ in left.values() if start > first]
    return place.model_copy(update={"chunk": Chunk(first=first, last=min(ends), sources=sources)})


def historical_pass_sensor(config: GardenerConfig) -> dg.SensorDefinition:
    """The sensor ``historical_pass``; a person turns it on and off in Dagster's UI."""
    interval = seconds_between(config.monitor.polling_interval)

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
        place = Place.model_validate_json(context.cursor) if context.cursor else None
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
    """Asks for the chunk, waits for its run, or moves on from it."""
    if place is None or place.chunk is None:
        following = begin(config, place, now=now)
        if following.chunk is None:
            return dg.SensorResult(skip_reason="no source has a history: all are daily_only")
        return _at(following)
    runs = instance.get_runs(RunsFilter(tags={HISTORY_TAG: place.part}))
    if any(run.status in NOT_ENDED for run in runs):
        return _at(place, "its run goes on")
    requesters = [requester_of(run.run_id, run.tags) for run in runs]
    if store.days.asked_by(requesters) or len(runs) == TRIES:
        asked = {key for run in runs for key in run.asset_selection or ()}
        return _at(move_on(config, place, {"/".join(key.path[1:]) for key in asked}))
    sources = [s for s in config.sources if s.name in place.chunk.sources]
    if not sources or place.chunk.first < config.start_date:
        return _at(move_on(config, place, ()))  # the configuration has changed: planned anew
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
