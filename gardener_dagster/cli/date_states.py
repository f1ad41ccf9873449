"""What the job store knows of each source and date, as lines of text."""

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gardener_api.config import Source
from gardener_api.jobs.job import Job
from gardener_api.store.store import JobStore
from gardener_dagster.planning.due_tables import job_key


@dataclass(frozen=True, kw_only=True)
class DayFacts:
    """What the store knows of a source on a date.

    Attributes:
        source: The source's name.
        date: The date.
        job: The newest job; ``None`` if the date was never requested.
        raw_rows: Number of rows in the raw partition; ``None`` if it was never made.
        joined_rows: Number of rows in the joined partition; ``None`` if it was never made.
    """

    source: str
    date: dt.date
    job: Job | None
    raw_rows: int | None
    joined_rows: int | None

    def __str__(self) -> str:
        job = self.job
        state = job.state if job else "never asked for"
        attempt = f"attempt {job.attempt}" if job else ""
        archives = "" if job is None or job.archives is None else f"{job.archives:,} archives"
        rows = [
            f"{count:,} rows {name}"
            for count, name in ((self.raw_rows, "raw"), (self.joined_rows, "joined"))
            if count is not None
        ]
        why = (job.detail, job.error) if job else ()
        said = [text for text in (archives, *rows, *why) if text]
        return f"{self.source:22} {self.date}  {state:15} {attempt:10} {'; '.join(said)}".rstrip()


def day_facts(
    store: JobStore, sources: Sequence[Source], dates: Sequence[dt.date]
) -> Iterator[DayFacts]:
    """Yield the facts of each source and date, by source. ``dates``: in order, at least one."""
    first, last = dates[0], dates[-1]
    for source in sources:
        jobs = store.days.latest([job_key(source, date) for date in dates])
        raw = store.days.rows(source.raw_table, first, last)
        joined = store.days.rows(source.joined_table or "", first, last)
        for date in dates:
            yield DayFacts(
                source=source.name,
                date=date,
                job=jobs.get(job_key(source, date)),
                raw_rows=raw.get(date),
                joined_rows=joined.get(date),
            )
