"""What a backfill is expected to cost, from what its dates or their neighbours cost before. Pure.

This is an estimate, not a bound: new archives and a new parser version change the cost.
"""

import datetime as dt
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gardener_api.formatting import human_bytes, human_duration
from gardener_api.store.queries.plan_queries import Cost
from gardener_dagster.planning.backfills import BackfillPlan, Records

NEIGHBOUR_DAYS = 31
"""Maximum distance, in days, of the date whose cost stands in for a date without one."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """The number of parsers and the length of their queue.

    Attributes:
        parsers: Number of parsers that have a job, or had one in the last day.
        queued: Number of queued jobs that are handed out before those of the backfill.
    """

    parsers: int
    queued: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The expected cost of a backfill.

    Attributes:
        jobs: Number of jobs: one per source and date.
        pending: Number of jobs that exist already and are unfinished.
        from_neighbours: Number of jobs whose cost is that of a nearby date.
        unknown: Number of jobs of unknown cost, which the total excludes.
        total: Total cost of all other jobs.
        parses: Whether the dates are parsed; otherwise only tables are made.
    """

    jobs: int
    pending: int
    from_neighbours: int
    unknown: int
    total: Cost
    parses: bool

    def time_to_finish(self, capacity: Capacity) -> dt.timedelta | None:
        """Return the time to parse the queue and the backfill; ``None``: not known.

        Queued jobs and jobs of unknown cost count with the mean of the known ones.
        """
        known = self.jobs - self.unknown
        if not self.parses or not known or not capacity.parsers:
            return None
        waiting = max(0, capacity.queued - self.pending)
        each = self.total.parser_seconds / known
        return dt.timedelta(seconds=each * (self.jobs + waiting) / capacity.parsers)

    def lines(self, capacity: Capacity) -> Iterator[str]:
        """Yield the estimate as lines of text."""
        yield f"Expected, from the last time that each date was made{self._reservations()}:"
        for name, value in self._values(capacity):
            yield f"  {name:15} {value}"

    def _reservations(self) -> str:
        said = [
            text
            for count, text in (
                (self.from_neighbours, "{:,} of a neighbouring date"),
                (self.unknown, "{:,} not known and left out"),
            )
            if count
            for text in [text.format(count)]
        ]
        return f" ({', '.join(said)})" if said else ""

    def _values(self, capacity: Capacity) -> Iterator[tuple[str, str]]:
        total = self.total
        pending = f", {self.pending:,} of them on their way already" if self.pending else ""
        yield "jobs", f"{self.jobs:,}{pending}"
        if self.parses:
            yield "archives", _archives(total)
            yield "parser hours", _hours(total.parser_seconds)
        yield "rows", f"{total.rows:,}"
        yield "load", f"{human_bytes(total.bytes_loaded)} in {_seconds(total.load_seconds)}"
        processed, billed = human_bytes(total.bytes_processed), human_bytes(total.bytes_billed)
        yield "queries", f"{processed} processed, {billed} billed"
        yield "slot hours", _hours(total.slot_seconds)
        if self.parses:
            yield "time to finish", self._finish(capacity)

    def _finish(self, capacity: Capacity) -> str:
        time = self.time_to_finish(capacity)
        if time is not None:
            parsers = f"{capacity.parsers:,} {'parser' if capacity.parsers == 1 else 'parsers'}"
            waiting = max(0, capacity.queued - self.pending)
            behind = f", behind {waiting:,} jobs that wait already" if waiting else ""
            return f"about {human_duration(time)} with {parsers}{behind}"
        if not capacity.parsers:
            return "not known: no parser has had a job in the last day"
        return "not known: none of these dates, nor a date near them, was ever parsed"


def estimate(plan: BackfillPlan, records: Mapping[str, Records], *, parses: bool) -> Estimate:
    """Estimate the cost of a plan.

    Args:
        plan: The plan.
        records: Records of each source's dates and of nearby dates, by source name.
        parses: Whether the dates are parsed; otherwise only tables are made.
    """
    total, from_neighbours, unknown = Cost(), 0, 0
    for source in plan.sources:
        of = {
            date: record.cost
            for date, record in records.get(source.wanted.name, {}).items()
            if record.cost is not None
        }
        known = sorted(of)
        for date in source.dates:
            near = date if date in of else _nearest(date, known)
            if near is None:
                unknown += 1
                continue
            from_neighbours += near != date
            total += of[near]
    return Estimate(
        jobs=sum(len(source.dates) for source in plan.sources),
        pending=sum(len(source.pending) for source in plan.sources),
        from_neighbours=from_neighbours,
        unknown=unknown,
        total=total,
        parses=parses,
    )


def _nearest(date: dt.date, known: list[dt.date]) -> dt.date | None:
    """Return the nearest of sorted dates within ``NEIGHBOUR_DAYS``; the earlier one on a tie."""
    at = bisect_left(known, date)
    beside = known[max(0, at - 1) : at + 1]
    nearest = min(beside, key=lambda other: abs(other - date), default=None)
    if nearest is None or abs(nearest - date) > dt.timedelta(days=NEIGHBOUR_DAYS):
        return None
    return nearest


def _archives(total: Cost) -> str:
    sized = total.archives - total.archives_unsized
    if not sized:
        return f"{total.archives:,}"
    size = human_bytes(total.archive_bytes)
    of = f" in {sized:,} of them; the size of the others is not known"
    return f"{total.archives:,}, {size}{of if total.archives_unsized else ''}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f}"


def _seconds(seconds: float) -> str:
    return human_duration(dt.timedelta(seconds=seconds))
