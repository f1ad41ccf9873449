"""What Dagster's pages say of a partition that was made, and of an error. No computation."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from gardener_api.store.tables.table_versions import PartitionRecord
from gardener_dagster.warehouse.errors import WarehouseError
from gardener_dagster.warehouse.objects import LoadSource
from gardener_dagster.warehouse.results import (
    BqJob,
    CopyResult,
    DedupResult,
    JoinResult,
    KeyComparison,
    LoadResult,
    Result,
)


def table_metadata(table_url: str, *results: Result, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a partition: its contents, then its costs, BigQuery jobs and SQL.

    Args:
        table_url: URL of the table's page.
        *results: Results of the operations that made the partition.
        about: Metadata about its contents.
    """
    jobs = [job for result in results for job in result.bq_jobs]
    common: dict[str, Any] = {
        "table": dg.MetadataValue.url(table_url),
        "seconds waiting": round(sum(r.waiting_seconds for r in results), 2),
        "seconds running": round(sum(r.running_seconds for r in results), 2),
        "slot seconds": round(sum(r.slot_seconds for r in results), 2),
        "bytes processed": sum(r.bytes_processed for r in results),
        "bytes billed": sum(r.bytes_billed for r in results),
        "tries that failed": sum(job.tries - 1 for job in jobs),
        "BigQuery jobs": dg.MetadataValue.md("\n".join(map(_job_line, jobs)) or "none"),
    }
    return dict(about) | common | _sql_metadata(results)


def about_earlier(table_url: str, record: PartitionRecord) -> dict[str, Any]:
    """Return the metadata of a partition that an earlier run made."""
    return {
        "dagster/row_count": record.rows,
        "table": dg.MetadataValue.url(table_url),
        "made by": dg.MetadataValue.dagster_run(record.run_id),
    }


def about_load(result: LoadResult, chosen: LoadSource) -> dict[str, Any]:
    """Return metadata about what was loaded, and what was left out."""
    return {
        "dagster/row_count": result.rows,
        "objects": result.objects,
        "bytes": result.bytes_loaded,
        "archives without an object": named(chosen.missing),
        "stale objects left out": named(chosen.stale),
        "objects of no archive left out": named(chosen.orphaned),
        "write errors of the parser": named(chosen.write_errors),
        "added fields": named(result.added_fields),
    }


def about_copy(dedup: DedupResult, copy: CopyResult, keys: KeyComparison) -> dict[str, Any]:
    """Return metadata about the rows of raw, and how their keys differ from the version before."""
    return {
        "dagster/row_count": copy.rows,
        "rows before": copy.rows_before or 0,
        "ids added": keys.added,
        "ids removed": keys.removed,
        "ids in both": keys.kept,
        "rows loaded": dedup.rows_before,
        "duplicates removed": dedup.duplicates_removed,
        "rows without a key": keys.keyless,
    } | ({"warning": copy.warning} if copy.warning else {})


def about_join(result: JoinResult, annotated: int) -> dict[str, Any]:
    """Return metadata about the joined rows, and how many of them are annotated."""
    share = annotated / result.rows if result.rows else 0.0
    return {
        "dagster/row_count": result.rows,
        "rows annotated": annotated,
        "share annotated": round(share, 4),
        "annotations of the date": result.annotations,
        "annotations of the day before": result.annotations_before,
    } | ({"nothing joined": result.skipped} if result.skipped else {})


def error_metadata(error: WarehouseError, table_url: str) -> dict[str, Any]:
    """Return metadata about a failed operation, with links to its BigQuery job and table."""
    links = {"BigQuery job": error.bq_job_url, "table": table_url}
    return {
        "operation": error.operation,
        "reason": error.reason or "none given",
        "what to do": error.advice,
    } | {name: dg.MetadataValue.url(url) for name, url in links.items() if url}


def named(names: tuple[str, ...], most: int = 20) -> str:
    """Return the number of names and the first ``most`` of them, one per line."""
    more = f"\n… and {len(names) - most} more" if len(names) > most else ""
    return "\n".join([str(len(names)), *names[:most]]) + more


def _job_line(job: BqJob) -> str:
    failed = f", after {job.tries - 1} that failed for a passing reason" if job.tries > 1 else ""
    return f"- [{job.id}]({job.url}){failed}"


def _sql_metadata(results: tuple[Result, ...]) -> dict[str, Any]:
    return {
        f"SQL of {r.operation}": dg.MetadataValue.md(f"```sql\n{r.sql}\n```")
        for r in results
        if r.sql
    }
