"""Consecutive dates as ranges: what one run of Dagster can be asked for. Pure."""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
ONE_DAY = dt.timedelta(days=1)


def consecutive(
    items: Iterable[T], date: Callable[[T], dt.date], *, most: int
) -> Iterator[tuple[T, ...]]:
    """Split items into ranges of consecutive dates.

    Args:
        items: In any order, one a date.
        date: The date of an item.
        most: Of a range; a longer one is split from its first date on.
    """
    part: list[T] = []
    for item in sorted(items, key=date):
        if part and (len(part) == most or date(item) != date(part[-1]) + ONE_DAY):
            yield tuple(part)
            part = []
        part.append(item)
    if part:
        yield tuple(part)


def dates_between(first: dt.date, last: dt.date) -> list[dt.date]:
    """All dates from the first to the last, both included."""
    return [first + n * ONE_DAY for n in range((last - first).days + 1)]
