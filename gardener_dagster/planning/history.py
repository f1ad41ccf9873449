"""Plan the historical pass: which dates of which sources come next.

A pass takes every date of every source that is not ``daily_only`` once, in chunks:
consecutive dates of the same sources, one run of ``parse`` each.
"""

import datetime as dt
from collections.abc import Collection

from pydantic import BaseModel, ConfigDict

from gardener_api.config import GardenerConfig, Source
from gardener_dagster.planning.daily import ONE_DAY


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
        recent = min(config.history.recent_days, max(0, (began.date() - first).days))
        first = max(first, began.date() - recent * ONE_DAY)
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
