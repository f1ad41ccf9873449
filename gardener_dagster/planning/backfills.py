"""Which dates a backfill from the command line makes, and which it leaves out and why. Pure."""

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gardener_api.jobs.job import OPEN, JobState
from gardener_api.store.queries.plan_queries import DateRecord
from gardener_dagster.planning.ranges import consecutive

PENDING = "on its way already"
_VERSION = re.compile(r"v?(\d+(?:\.\d+)*)", re.ASCII)
_NOTHING = DateRecord()
_MADE, _FAILED, _NEVER = "made already", "failed, see --failed", "never made, see --missing"

Records = Mapping[dt.date, DateRecord]
Dates = tuple[dt.date, ...]
Targets = Mapping[dt.date, dt.datetime]
"""Start time of the newest unfinished backfill of each date."""


@dataclass(frozen=True, kw_only=True)
class OlderThan:
    """The limit of ``--older-than``: a parser version or a day; exactly one of them is set.

    Attributes:
        text: The value as entered.
        version: Numbers of the parser version.
        day: Day in UTC; dates parsed before it are older.
    """

    text: str
    version: tuple[int, ...] | None = None
    day: dt.date | None = None

    @classmethod
    def parse(cls, text: str) -> "OlderThan":
        """Parse a version like ``v2.6.1``, or a date like ``2024-03-01``.

        Raises:
            ValueError: The text is neither.
        """
        try:
            return cls(text=text, day=dt.date.fromisoformat(text))
        except ValueError:
            version = version_numbers(text)
        if version is None:
            raise ValueError(f"{text!r}: expected a version like v2.6.1, or a date like 2024-03-01")
        return cls(text=text, version=version)

    def is_older(self, record: DateRecord) -> bool | None:
        """Whether a made date is older; ``None``: the store does not know."""
        if self.day is not None:
            made = record.parsed or min(record.made.values(), default=None)
            return None if made is None else made.astimezone(dt.UTC).date() < self.day
        versions = [version_numbers(version) for version in record.versions]
        known = [version for version in versions if version is not None]
        if self.version is not None and any(version < self.version for version in known):
            return True
        return False if known and len(known) == len(versions) else None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A filter of the requested dates: a date is selected if it meets any of the criteria.

    Attributes:
        missing: Select dates that were never made.
        failed: Select dates whose newest job failed.
        older_than: Select dates made by an older parser version, or before a day.
    """

    missing: bool = False
    failed: bool = False
    older_than: OlderThan | None = None

    def __bool__(self) -> bool:
        return self.missing or self.failed or self.older_than is not None

    def reason_to_skip(
        self,
        record: DateRecord,
        tables: Sequence[str],
        targeted: dt.datetime | None = None,
    ) -> str:
        """Return why a date is not selected; empty if it is.

        Args:
            record: Record of the date.
            tables: Tables that exist once the date is made.
            targeted: Start of the newest unfinished backfill with this date; ``None``: there is
                none.
        """
        if record.state in OPEN:
            return PENDING
        if targeted and (record.created is None or record.created < targeted):
            return PENDING  # that backfill has not asked for the date yet
        made = is_made(record, tables)
        if (self.missing and not made) or (self.failed and record.state is JobState.FAILED):
            return ""
        if not made:
            return _FAILED if record.state is JobState.FAILED else _NEVER
        if self.older_than is None:
            return _MADE
        older = self.older_than.is_older(record)
        if older is None:
            return f"{_MADE}; whether by a version before {self.older_than.text} is not known"
        return "" if older else f"{_MADE}, not older than {self.older_than.text}"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A source to backfill.

    Attributes:
        name: ``<experiment>/<datatype>``.
        assets: Asset keys to materialize, each as the parts of its path.
        tables: Tables that exist once a date is made, as ``<dataset>.<table>``.
    """

    name: str
    assets: tuple[tuple[str, ...], ...]
    tables: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SourcePlan:
    """The dates of a source that a backfill makes.

    Attributes:
        wanted: The source.
        dates: The dates that will be made, in order.
        pending: Those of ``dates`` with an unfinished job, to which the backfill attaches.
        skipped: The dates that will not be made, in order, by reason.
    """

    wanted: Wanted
    dates: Dates
    pending: Dates = ()
    skipped: Mapping[str, Dates] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BackfillPlan:
    """What a backfill makes.

    Attributes:
        sources: The plan of each source.
        left_out: The dates without a partition, in order, by reason.
    """

    sources: tuple[SourcePlan, ...]
    left_out: Mapping[str, Dates] = field(default_factory=dict)

    def groups(self) -> dict[Dates, tuple[SourcePlan, ...]]:
        """Group sources by their dates: all assets of a Dagster backfill have the same dates."""
        groups: dict[Dates, tuple[SourcePlan, ...]] = {}
        for plan in self.sources:
            if plan.dates:
                groups[plan.dates] = (*groups.get(plan.dates, ()), plan)
        return groups

    def lines(self) -> Iterator[str]:
        """Yield the plan as lines of text."""
        for dates, plans in self.groups().items():
            yield f"Will be made: {_ranges(dates)} of"
            for plan in plans:
                for asset in plan.wanted.assets:
                    yield f"  {'/'.join(asset)}"
        for reason, sources in _by_reason(self.sources).items():
            for dates, names in sources.items():
                yield f"Skipped: {_ranges(dates)} of {', '.join(names)}: {reason}"
        for reason, dates in self.left_out.items():
            yield f"Left out: {_ranges(dates)}: {reason}"


def plan_backfill(
    wanted: Iterable[Wanted],
    dates: Iterable[dt.date],
    *,
    start_date: dt.date,
    today: dt.date,
    selection: Selection | None = None,
    records: Mapping[str, Records] | None = None,
    targets: Mapping[str, Targets] | None = None,
) -> BackfillPlan:
    """Divide dates into those that are made, those that are skipped, and those without a partition.

    Args:
        wanted: The sources.
        dates: The requested dates, in any order; duplicates are allowed.
        start_date: The first partition.
        today: The date in UTC. The last partition is the day before.
        selection: Filter of the dates; default: all.
        records: Records of each source's dates, by source name.
        targets: Dates of unfinished backfills, by source name.
    """
    asked = sorted(set(dates))
    outside = {
        f"before start_date {start_date} of the configuration": [
            date for date in asked if date < start_date
        ],
        f"not over yet; today is {today} (UTC), and a date can be made from the next day on": [
            date for date in asked if date >= max(today, start_date)
        ],
    }
    inside = [date for date in asked if start_date <= date < today]
    known, targeted = records or {}, targets or {}
    return BackfillPlan(
        sources=tuple(
            _plan_source(
                source,
                inside,
                selection or Selection(),
                known.get(source.name, {}),
                targeted.get(source.name, {}),
            )
            for source in wanted
        ),
        left_out={reason: tuple(some) for reason, some in outside.items() if some},
    )


def _plan_source(
    wanted: Wanted,
    dates: Sequence[dt.date],
    selection: Selection,
    records: Records,
    targets: Targets,
) -> SourcePlan:
    made: list[dt.date] = []
    skipped: dict[str, list[dt.date]] = {}
    for date in dates:
        record = records.get(date, _NOTHING)
        reason = (
            selection.reason_to_skip(record, wanted.tables, targets.get(date)) if selection else ""
        )
        (skipped.setdefault(reason, []) if reason else made).append(date)
    return SourcePlan(
        wanted=wanted,
        dates=tuple(made),
        pending=tuple(date for date in made if records.get(date, _NOTHING).state in OPEN),
        skipped={reason: tuple(some) for reason, some in skipped.items()},
    )


def is_made(record: DateRecord, tables: Sequence[str]) -> bool:
    """Whether all tables of a date were made; those of an older gardener are not in the store.

    Args:
        record: Record of the date.
        tables: Tables that exist once the date is made.
    """
    return record.state is JobState.COMPLETE or all(table in record.made for table in tables)


def version_numbers(version: str) -> tuple[int, ...] | None:
    """Return the numbers of a version like ``v2.6.1``; ``None`` for any other text."""
    match = _VERSION.fullmatch(version)
    return tuple(map(int, match[1].split("."))) if match else None


def _by_reason(sources: Iterable[SourcePlan]) -> dict[str, dict[Dates, list[str]]]:
    """Group the names of sources by reason, then by the dates skipped for it."""
    found: dict[str, dict[Dates, list[str]]] = {}
    for plan in sources:
        for reason, dates in plan.skipped.items():
            found.setdefault(reason, {}).setdefault(dates, []).append(plan.wanted.name)
    return found


def _ranges(dates: Sequence[dt.date]) -> str:
    """Format dates as ranges: ``2024-03-01 to 2024-03-04, 2024-03-09 (5 dates)``."""
    ranges = consecutive(dates, lambda date: date, most=len(dates))
    told = ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]} to {r[-1]}" for r in ranges)
    return f"{told} ({len(dates):,} {'date' if len(dates) == 1 else 'dates'})"
