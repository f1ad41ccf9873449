"""What landed where: one row per datatype and date, counted in the tables themselves."""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from google.cloud import bigquery

from gardener_api.config import GardenerConfig, Source
from gardener_api.jobs.job import Job, JobState
from gardener_api.store.store import JobStore
from gardener_dagster.planning.due_tables import job_key


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Counts of a datatype on a date; ``None``: it is not joined, or its job is not complete."""

    archives: int
    rows_loaded: int
    duplicates_removed: int
    raw_rows: int
    joined_rows: int | None
    annotated_rows: int | None


@dataclass(frozen=True, kw_only=True)
class Landed:
    """One datatype on one date: its job and its tables."""

    source: str
    job: Job
    counts: Counts

    @property
    def seconds(self) -> float:
        """Seconds from the creation of the job to its end."""
        return ((self.job.ended or self.job.entered) - self.job.created).total_seconds()


def read_landed(
    client: bigquery.Client, config: GardenerConfig, dates: Iterable[dt.date], store: JobStore
) -> list[Landed]:
    """Return one entry per date and source, in this order.

    Raises:
        LookupError: A date has no job.
    """
    landed = []
    for date in dates:
        for source in config.sources:
            job = store.latest(job_key(source, date))
            if job is None:
                raise LookupError(f"the store has no job for {source.name} on {date}")
            counts = _counts(client, source, job, store)
            landed.append(Landed(source=source.name, job=job, counts=counts))
    return landed


def _counts(client: bigquery.Client, source: Source, job: Job, store: JobStore) -> Counts:
    rows = {
        operation.operation: operation.rows
        for operation in store.tables.operations(job.key)
        if operation.at >= job.created
    }
    loaded = rows.get("load", 0)
    date, joined = job.key.date, source.joined_table
    made = joined is not None and job.state is JobState.COMPLETE
    return Counts(
        archives=job.archives or 0,
        rows_loaded=loaded,
        duplicates_removed=loaded - rows.get("dedup", loaded),
        raw_rows=_count(client, source.raw_table, date, "COUNT(*)"),
        joined_rows=_count(client, joined, date, "COUNT(*)") if joined and made else None,
        annotated_rows=(
            _count(client, joined, date, "COUNTIF(server.Site IS NOT NULL)")
            if joined and made
            else None
        ),
    )


def _count(client: bigquery.Client, table: str, date: dt.date, what: str) -> int:
    dataset, _, name = table.partition(".")
    sql = f"SELECT {what} AS n FROM `{client.project}.{dataset}.{name}` WHERE date = @date"  # noqa: S608 - names from the checked configuration
    config = bigquery.QueryJobConfig(
        query_parameters=[bigquery.ScalarQueryParameter("date", "DATE", date)]
    )
    rows: Sequence[bigquery.Row] = list(client.query(sql, job_config=config).result())
    return int(rows[0]["n"])
