"""Progress of a backfill: how much is done, its rate, its expected end. Pure."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

RATE_WINDOW = dt.timedelta(hours=6)
"""The rate counts the jobs that ended within this time."""
_HOUR = dt.timedelta(hours=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class BackfillProgress:
    """An unfinished backfill.

    Attributes:
        backfill_id: Its ID in Dagster.
        sources: ``<experiment>/<datatype>`` of its jobs.
        first: Its first date.
        last: Its last date.
        asked: When it first requested a job; if ``tables_only``, when it was launched.
        jobs: Jobs with an active request of it; if ``tables_only``, its dates.
        complete: Those of them whose tables are complete.
        failed: Those of them that failed or were withdrawn.
        ended_lately: Those of them that ended within the last ``RATE_WINDOW``.
        tables_only: Whether it makes tables only, without parsing.
    """

    backfill_id: str
    sources: Sequence[str]
    first: dt.date
    last: dt.date
    asked: dt.datetime
    jobs: int
    complete: int
    failed: int
    ended_lately: int
    tables_only: bool = False

    @property
    def left(self) -> int:
        """Jobs that have not ended."""
        return self.jobs - self.complete - self.failed

    def per_hour(self, now: dt.datetime) -> float:
        """Jobs that ended per hour, in ``RATE_WINDOW`` or since ``asked``; 0 if none did."""
        time = min(RATE_WINDOW, now - self.asked)
        return self.ended_lately * (_HOUR / time) if time > dt.timedelta(0) else 0.0

    def expected_end(self, now: dt.datetime) -> dt.datetime | None:
        """The expected end at the current rate; ``None`` if no job ended in ``RATE_WINDOW``."""
        rate = self.per_hour(now)
        return now + _HOUR * (self.left / rate) if rate else None
