"""How far a backfill is, how quick, and when it will end. Pure."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

RATE_WINDOW = dt.timedelta(hours=6)
"""The rate is that of the jobs that ended so lately."""
_HOUR = dt.timedelta(hours=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class BackfillProgress:
    """A backfill that is not finished.

    Attributes:
        backfill_id: Dagster's.
        sources: ``<experiment>/<datatype>`` of its jobs.
        first: Its first date.
        last: Its last date.
        asked: When it first asked for a job.
        jobs: That it asked for and did not take back; of tables alone: dates that it makes.
        complete: Those of them whose tables are made.
        failed: Those of them that failed.
        ended_lately: Those of them that ended within ``RATE_WINDOW``.
        tables_only: Whether it makes tables alone, and parsers do nothing for it.
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
        """How many jobs ended in an hour, lately; 0 where none did."""
        time = min(RATE_WINDOW, now - self.asked)
        return self.ended_lately * (_HOUR / time) if time > dt.timedelta(0) else 0.0

    def expected_end(self, now: dt.datetime) -> dt.datetime | None:
        """When it ends at the present rate; ``None`` where no job ended lately."""
        rate = self.per_hour(now)
        return now + _HOUR * (self.left / rate) if rate else None
