"""Cancel BigQuery jobs of a dead run, which could still write to a partition of another run."""

import logging
from dataclasses import replace
from typing import Any

from gardener_dagster.warehouse.answers import AnyJob
from gardener_dagster.warehouse.engine import Engine
from gardener_dagster.warehouse.names import JobContext, SourceTables, Step

_log = logging.getLogger(__name__)


def cancel_unfinished(
    engine: Engine, tables: SourceTables, ctx: JobContext, *, run_id: str
) -> list[str]:
    """Cancel a run's unfinished BigQuery jobs on a date of a source, and wait for their end.

    Args:
        engine: cancels the jobs.
        tables: tables of the source.
        ctx: context of the next work. Jobs with its seed are not cancelled: that work uses them.
        run_id: the dead Dagster run.

    Returns:
        The ids of the jobs that were cancelled.

    Raises:
        BigQueryFailure: BigQuery refused to list the jobs.
        RetriesExhausted: a transient error outlasted all retries.
    """
    partition = tables.tmp_partition(ctx.date)
    step = Step(operation="takeover", tables=tables, ctx=ctx, partition=partition)
    of_run = replace(step, ctx=replace(ctx, run_id=run_id)).labels
    del of_run["operation"]  # of any operation

    def unfinished(options: dict[str, Any]) -> list[AnyJob]:
        states = ("pending", "running")
        return [job for s in states for job in engine.client.list_jobs(state_filter=s, **options)]

    found = [
        str(job.job_id)
        for job in engine.call(step, unfinished)
        if of_run.items() <= job.labels.items() and not ctx.has_seed(str(job.job_id))
    ]
    for job_id in found:
        _log.warning("BigQuery job %s is of run %s, which is gone: cancelling it", job_id, run_id)
        engine.cancel(job_id)
    return found
