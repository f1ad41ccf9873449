"""What people do from a shell that they could do in the UI: ask for dates, and look at them.

Printing and exit codes included, options not: these are ``cli``'s.
"""

import datetime as dt
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from gardener_api.config import GardenerConfig, Source
from gardener_api.jobs import ENDED, Job, JobState
from gardener_api.store import JobStore
from gardener_dagster.graph import parsed_key, table_keys
from gardener_dagster.local.dagster_client import DagsterClient
from gardener_dagster.partitions import dates_between
from gardener_dagster.planning import job_key

LOOK_SECONDS = 1.0
UNFINISHED = ("REQUESTED", "CANCELING", "FAILING")

Echo = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class DayFacts:
    """What the store knows of a source on a date.

    Attributes:
        source: The source's name.
        date: The date.
        job: Its newest job; ``None`` if it was never asked for.
        raw_rows: In its raw partition; ``None`` if none was made.
        joined_rows: In its joined partition; ``None`` if none was made.
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
    store: JobStore, sources: Sequence[Source], first: dt.date, last: dt.date
) -> Iterator[DayFacts]:
    """The facts of each source and date, source by source."""
    dates = dates_between(first, last)
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


def launch_backfill(
    dagster: DagsterClient,
    sources: Iterable[Source],
    first: dt.date,
    last: dt.date,
    *,
    tables_only: bool,
) -> str:
    """Launches a backfill: of what is parsed, after which the tables follow; or of the tables.

    Returns:
        Its id.

    Raises:
        DagsterError: Dagster refused.
        requests.RequestException: Its webserver does not answer.
    """
    keys = [
        key
        for source in sources
        for key in (table_keys(source) if tables_only else [parsed_key(source)])
    ]
    return dagster.backfill([key.path for key in keys], dates_between(first, last))


def follow_backfill(
    dagster: DagsterClient,
    backfill_id: str,
    store: JobStore,
    sources: Sequence[Source],
    first: dt.date,
    last: dt.date,
    *,
    echo: Echo,
) -> bool:
    """Waits until the backfill has ended and all of its dates have; prints each as it does.

    Returns:
        Whether all went well.
    """
    status = "REQUESTED"
    while status in UNFINISHED:
        time.sleep(LOOK_SECONDS)
        status = dagster.backfill_status(backfill_id)
    # From here on, what has ended is what the backfill made of it: its jobs were asked for.
    told: set[tuple[str, dt.date]] = set()
    good = status == "COMPLETED_SUCCESS"
    while True:
        facts = list(day_facts(store, sources, first, last))
        for fact in facts:
            ended = fact.job is None or fact.job.state in ENDED
            if ended and (fact.source, fact.date) not in told:
                told.add((fact.source, fact.date))
                good = good and (fact.job is None or fact.job.state is JobState.COMPLETE)
                echo(str(fact))
        if len(told) == len(facts):
            echo(f"backfill {backfill_id}: {status}")
            return good
        time.sleep(LOOK_SECONDS)


def chosen_sources(config: GardenerConfig, names: Sequence[str]) -> tuple[Source, ...]:
    """The sources of these names; no names: all.

    Raises:
        KeyError: There is none of a name.
    """
    return tuple(map(config.source, names)) if names else config.sources
