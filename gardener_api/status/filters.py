"""Which jobs a page shows, as the query of its URL: read, checked, and written again.

All of it is in the URL, so a list can be kept, sent to somebody, and refreshed.
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
"""Jobs on a page."""
MOST_PAGES = 10_000
"""So that an offset is a number that every database takes."""
SORTS = (JobOrder.RECENT, JobOrder.DATE, JobOrder.SOURCE, JobOrder.STATE)
"""What a list can be sorted by; a minus before it turns it round."""


class FilterError(ValueError):
    """A query that cannot be used; the message names the parameter, the value and what to write."""


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """What is wanted of the list of jobs; ``""`` and ``None``: any."""

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
        """The filter in the query of a URL; parameters that it does not know are left alone.

        ``date`` stands for ``from`` and ``to`` of the same date; ``state`` may name several states,
        with commas between them.

        Raises:
            FilterError: A value is none that the parameter can have.
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
        """The query of the URL of this list, without what is usual.

        Args:
            **changed: Fields that are to be different. Whatever is changed besides the page, the
                page is the first.
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
        """The order, as it stands in a URL."""
        return f"-{self.order}" if self.reverse else str(self.order)

    @property
    def narrowed(self) -> bool:
        """Whether it leaves any job out."""
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
