"""Follow backfills until they have ended."""

import datetime as dt
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from gardener_api.config import Source
from gardener_api.jobs.job import ENDED, JobState
from gardener_api.store.store import JobStore
from gardener_dagster.cli.date_states import day_facts
from gardener_dagster.dagster_client import UNFINISHED, DagsterClient

POLL_SECONDS = 1.0

Echo = Callable[[str], object]
Asked = tuple[Sequence[Source], Sequence[dt.date]]


def follow_backfills(
    dagster: DagsterClient, backfills: Mapping[str, Asked], store: JobStore, *, echo: Echo
) -> bool:
    """Wait until the backfills and then their jobs have ended; print each date when it ends.

    Args:
        dagster: Client of Dagster's webserver.
        backfills: Sources and dates of each backfill, by backfill ID.
        store: The job store.
        echo: Prints a line.

    Returns:
        Whether all backfills and dates succeeded.
    """
    # Ended backfills have requested all of their jobs: a date without a job counts as ended.
    statuses = {backfill: _ended(dagster, backfill) for backfill in backfills}
    good = all(status == "COMPLETED_SUCCESS" for status in statuses.values())
    good = _dates_end(store, backfills.values(), echo=echo) and good
    for backfill, status in statuses.items():
        echo(f"backfill {backfill}: {status}")
    return good


def _ended(dagster: DagsterClient, backfill: str) -> str:
    status = "REQUESTED"
    while status in UNFINISHED:
        time.sleep(POLL_SECONDS)
        status = dagster.backfill_status(backfill)
    return status


def _dates_end(store: JobStore, asked: Iterable[Asked], *, echo: Echo) -> bool:
    asked = list(asked)
    told: set[tuple[str, dt.date]] = set()
    good = True
    while True:
        facts = [fact for sources, dates in asked for fact in day_facts(store, sources, dates)]
        for fact in facts:
            ended = fact.job is None or fact.job.state in ENDED
            if ended and (fact.source, fact.date) not in told:
                told.add((fact.source, fact.date))
                good = good and (fact.job is None or fact.job.state is JobState.COMPLETE)
                echo(str(fact))
        if len(told) == len(facts):
            return good
        time.sleep(POLL_SECONDS)
