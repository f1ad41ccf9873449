"""Plan the historical pass: which dates of which sources come next.

A pass parses every date of every source that is not ``daily_only`` once, in chunks. A chunk is a
range of consecutive dates of the same sources, parsed by one run of ``parse``.
"""

import datetime as dt
from collections.abc import Collection

from pydantic import BaseModel, ConfigDict

from gardener_api.config import GardenerConfig, Source
from gardener_dagster.planning.daily import ONE_DAY


class Chunk(BaseModel):
    """The dates and sources that one run requests."""

    model_config = ConfigDict(frozen=True)

    first: dt.date
    last: dt.date
    sources: tuple[str, ...]


class Place(BaseModel):
    """The progress of the passes: the sensor's cursor.

    Attributes:
        number: Number of the pass, from 1.
        began: When the pass began; its last date is the day before.
        next: By source name, the first date still to be requested. Entries of sources that are no
            longer configured are kept.
        chunk: The chunk that is requested now or next; ``None``: the pass is over.
    """

    model_config = ConfigDict(frozen=True)

    number: int
    began: dt.datetime
    next: dict[str, dt.date]
    chunk: Chunk | None

    @property
    def part(self) -> str:
        """Unique name of the current chunk: the tag of its runs."""
        if self.chunk is None:
            return ""
        first, last, names = self.chunk.first, self.chunk.last, "+".join(self.chunk.sources)
        return f"{self.number}/{self.began:%Y%m%dT%H%M%S}/{first}..{last}/{names}"


def span(config: GardenerConfig, source: Source, began: dt.datetime) -> tuple[dt.date, dt.date]:
    """Return the first and last date of a source in a pass; first > last if it has no dates."""
    last = began.date() - ONE_DAY
    first = config.start_date
    if not source.full_history:
        recent = min(config.history.recent_days, max(0, (began.date() - first).days))
        first = max(first, began.date() - recent * ONE_DAY)
    return (last + ONE_DAY if source.daily_only else first), last


def begin(config: GardenerConfig, place: Place | None, *, now: dt.datetime) -> Place:
    """Return the place at the first chunk of the next pass."""
    number = place.number + 1 if place else 1
    return _with_chunk(config, Place(number=number, began=now, next={}, chunk=None))


def move_on(config: GardenerConfig, place: Place, done: Collection[str]) -> Place:
    """Return the place at the next chunk; without a chunk if the pass is over.

    Args:
        config: The current configuration: sources may have been added or removed.
        place: A place with a chunk.
        done: Names of the sources that the chunk's runs requested.
    """
    if place.chunk is None:
        raise ValueError(f"pass {place.number} is over: expected a place with a chunk")
    following = place.chunk.last + ONE_DAY
    moved = dict.fromkeys((s for s in place.chunk.sources if s in done), following)
    return _with_chunk(config, place.model_copy(update={"next": place.next | moved}))


def _with_chunk(config: GardenerConfig, place: Place) -> Place:
    """Return the place with the next chunk: the earliest remaining dates of any source.

    So all sources advance together, annotations with the rows that they are joined to. A source
    added during a pass first catches up with the others.
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
