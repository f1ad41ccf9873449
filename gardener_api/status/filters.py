"""Which jobs a page shows, as the query of its URL: read, checked, and written again.

The URL contains the whole filter, so a list can be bookmarked, shared and reloaded.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar
from urllib.parse import urlencode

from gardener_api.jobs.job import JobState
from gardener_api.store.queries.job_queries import JobOrder

T = TypeVar("T")

PAGE = 100
"""Number of jobs on a page."""
MOST_PAGES = 10_000
"""Largest page number, so that every database accepts the offset."""
SORTS = (JobOrder.RECENT, JobOrder.DATE, JobOrder.SOURCE, JobOrder.STATE)
"""Orders of a list; a leading minus reverses them."""


class FilterError(ValueError):
    """A query is invalid; the message names the parameter, the value and what was expected."""


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Filter, order and page of the list of jobs; an empty field matches every job."""

    experiment: str = ""
    datatype: str = ""
    first: dt.date | None = None
    last: dt.date | None = None
    states: tuple[JobState, ...] = ()
    text: str = ""
    order: JobOrder = JobOrder.RECENT
    reverse: bool = False
    page: int = 0

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> "JobFilter":
        """Parse the query of a URL; unknown parameters are ignored.

        ``date`` stands for ``from`` and ``to`` of the same date; ``state`` may name several states,
        separated by commas.

        Raises:
            FilterError: The value of a parameter is invalid.
        """
        given = {name: value.replace("\0", "").strip() for name, value in query.items()}
        day = _date(given, "date")
        first, last = _date(given, "from") or day, _date(given, "to") or day
        if first and last and first > last:
            raise FilterError(f"from {first}, to {last}: expected the earlier date first")
        sort = given.get("sort", "").removeprefix("-")
        page = _parsed(given, "page", _page, f"a number from 0 to {MOST_PAGES}")
        return cls(
            experiment=given.get("experiment", ""),
            datatype=given.get("datatype", ""),
            first=first,
            last=last,
            states=_parsed(given, "state", _states, f"one of {', '.join(JobState)}") or (),
            text=given.get("text", ""),
            order=_parsed({"sort": sort}, "sort", _sort, f"one of {', '.join(SORTS)}")
            or JobOrder.RECENT,
            reverse=given.get("sort", "").startswith("-"),
            page=page or 0,
        )

    def query(self, **changed: object) -> str:
        """Return the query of the URL of this list, without default values.

        Args:
            **changed: Fields to change. The page is reset to the first unless it is one of them.
        """
        wanted = replace(self, **{"page": 0} | changed)  # type: ignore[arg-type]  # names of fields, checked by replace
        values = {
            "experiment": wanted.experiment,
            "datatype": wanted.datatype,
            "from": wanted.first or "",
            "to": wanted.last or "",
            "state": ",".join(wanted.states),
            "text": wanted.text,
            "sort": wanted.sort if wanted.sort != JobOrder.RECENT else "",
            "page": wanted.page or "",
        }
        return urlencode({name: str(value) for name, value in values.items() if value != ""})

    @property
    def sort(self) -> str:
        """The order as a parameter of the URL."""
        return f"-{self.order}" if self.reverse else str(self.order)

    @property
    def narrowed(self) -> bool:
        """Whether any filter is set."""
        return bool(replace(self, order=JobOrder.RECENT, reverse=False, page=0).query())


def _date(given: Mapping[str, str], name: str) -> dt.date | None:
    return _parsed(given, name, dt.date.fromisoformat, "a date like 2024-03-01")


def _page(text: str) -> int:
    page = int(text)
    if not 0 <= page <= MOST_PAGES:
        raise ValueError
    return page


def _states(text: str) -> tuple[JobState, ...]:
    return tuple(dict.fromkeys(map(JobState, text.split(","))))


def _sort(text: str) -> JobOrder:
    order = JobOrder(text)
    if order not in SORTS:
        raise ValueError
    return order


def _parsed(
    given: Mapping[str, str], name: str, parse: Callable[[str], T], expected: str
) -> T | None:
    text = given.get(name, "")
    if not text:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise FilterError(f"{name} {text[:100]!r}: expected {expected}") from error
