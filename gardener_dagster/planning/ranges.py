"""Group consecutive dates into ranges, since one Dagster run makes one range. Pure."""

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
        items: The items, in any order, one per date.
        date: Returns the date of an item.
        most: Maximum length of a range; a longer one is split, starting at its first date.
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
    """Return all dates from the first to the last, both included."""
    return [first + n * ONE_DAY for n in range((last - first).days + 1)]
