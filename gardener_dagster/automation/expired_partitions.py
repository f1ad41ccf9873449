"""Delete expired partitions of the tmp tables, which failed runs have left behind."""

import datetime as dt

import dagster as dg

from gardener_api.config import GardenerConfig
from gardener_api.store.publishing.held import Outcome
from gardener_api.store.store import JobStore
from gardener_dagster.assets.keys import source_tables
from gardener_dagster.assets.metadata import named
from gardener_dagster.resources import WarehouseResource
from gardener_dagster.warehouse.errors import WarehouseError
from gardener_dagster.warehouse.names import JobContext, Partition


def build_expire_tmp(config: GardenerConfig) -> dg.ScheduleDefinition:
    """Build the schedule that deletes expired tmp partitions, every night at 04:00 UTC.

    BigQuery's partition expiration counts from the partition's date, not from its last change: it
    would delete a tmp partition of an old date as soon as it is loaded.
    """

    @dg.op(
        name="delete_expired_partitions",
        description=(
            "Deletes the tmp partitions that nobody has written to for"
            f" {config.bigquery.tmp_expiration} (`bigquery.tmp_expiration`)."
        ),
    )
    def delete_expired_partitions(
        context: dg.OpExecutionContext,
        job_store: dg.ResourceParam[JobStore],
        warehouse: WarehouseResource,
    ) -> None:
        now = dt.datetime.now(dt.UTC)
        ctx = JobContext(run_id=context.run_id, date=now.date())
        gone: list[str] = []
        failures: list[str] = []
        for source in config.sources:
            try:
                expired = warehouse.tables.expire_tmp(source_tables(source), ctx)
            except WarehouseError as error:  # continue with the other sources
                failures.append(str(error))
                continue
            for each in expired:
                gone.append(each.partition.id)
                _forget(job_store, each.partition, run_id=context.run_id, now=now)
                date = each.partition.date
                job_store.held.settle(source.raw_table, date, Outcome.SUPERSEDED, now=now)
                context.log.info(
                    f"{each.partition}: deleted, last written {each.last_modified:%F %T}"
                )
        context.add_output_metadata({"partitions deleted": named(tuple(gone))})
        if failures:
            raise dg.Failure("\n".join(failures), allow_retries=False)

    @dg.job(name="expire_tmp", executor_def=dg.in_process_executor)
    def expire_tmp_job() -> None:
        delete_expired_partitions()

    return dg.ScheduleDefinition(
        name="expire_tmp",
        job=expire_tmp_job,
        cron_schedule="0 4 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Deletes expired partitions of the tmp tables, which failed runs left behind.",
    )


def _forget(store: JobStore, partition: Partition, *, run_id: str, now: dt.datetime) -> None:
    """Record a version without a requester, so that a retry of its run loads the rows again."""
    made = store.tables.partition(partition.table_id, partition.date)
    if made is not None:
        store.tables.record_partition(
            partition.table_id, partition.date, rows=made.rows, job=made.job, run_id=run_id, now=now
        )
