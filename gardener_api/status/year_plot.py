"""The plot of a source's rows by day over a year: what is drawn where. Pure."""

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import groupby

from gardener_api.jobs.job import OPEN, JobState

DAYS = 366
STEP = 3
"""Width of a day, in units."""
HEIGHT = 120
_ONE_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Day:
    """A day of the plot.

    Attributes:
        date: The day.
        x: The position of its left edge, in units.
        height: The height of its bar, in units; 0: no bar.
        mark: ``held``, ``failed``, ``missing``, ``pending`` or ``""``.
        title: The text of its tooltip.
    """

    date: dt.date
    x: int
    height: float
    mark: str
    title: str


@dataclass(frozen=True, kw_only=True)
class YearPlot:
    """The plot.

    Attributes:
        days: From left to right.
        months: The name of each month, and the position of its left edge.
        most: The number of rows of the highest bar.
    """

    days: tuple[Day, ...]
    months: tuple[tuple[str, int], ...]
    most: int

    @property
    def width(self) -> int:
        """The width of the plot, in units."""
        return len(self.days) * STEP

    def marked(self, mark: str) -> list[dt.date]:
        """The days that have this mark."""
        return [day.date for day in self.days if day.mark == mark]


def year_plot(
    rows: Mapping[dt.date, int],
    states: Mapping[dt.date, JobState | None],
    held: Collection[dt.date] = (),
    *,
    last: dt.date,
) -> YearPlot:
    """Plot the rows of each day of the year that ends with ``last``.

    A day without rows and without a job is missing if an earlier day of the year has rows: the
    source may not have existed before its first rows.

    Args:
        rows: The number of rows of each day whose partition was written.
        states: The state of the newest job of each day that has a job.
        held: The days with a partition that waits for a decision.
        last: The last day, which should have rows by now.
    """
    dates = [last - back * _ONE_DAY for back in range(DAYS - 1, -1, -1)]
    begun = min((date for date in dates if date in rows), default=None)
    most = max((rows.get(date, 0) for date in dates), default=0)
    days = []
    for i, date in enumerate(dates):
        count = rows.get(date)
        may_miss = begun is not None and date > begun
        mark = "held" if date in held else _mark(count, states.get(date), may_miss=may_miss)
        said = "no rows known" if count is None else f"{count:,} rows"
        days.append(
            Day(
                date=date,
                x=i * STEP,
                height=round(HEIGHT * count / most, 1) if count else 0.0,
                mark=mark,
                title=f"{date}: {said}{f', {mark}' if mark else ''}",
            )
        )
    months = groupby(days, lambda day: f"{day.date:%Y-%m}")
    return YearPlot(
        days=tuple(days),
        months=tuple((month, next(iter(of)).x) for month, of in months),
        most=most,
    )


def _mark(rows: int | None, state: JobState | None, *, may_miss: bool) -> str:
    if state is JobState.FAILED:
        return "failed"
    if state in OPEN:
        return "pending"
    return "missing" if rows is None and state is None and may_miss else ""
