"""The asset graph: for each source, its chain of tables; the steps that make them.

A step does the warehouse's operations in their order and writes what happened into the store (for
the status page and the metrics) and into Dagster (for people). What an operation is stands in
``warehouse``; when a step runs is the sensors' and the backfills' business.

Dagster's graph shows the last part of a key only, the same for a source's whole chain; so the kinds
say which table a node is.
"""

import datetime as dt
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from gardener_api.archive import list_archives, list_parsed
from gardener_api.config import GardenerConfig, Source
from gardener_api.jobs import JobKey, JobState
from gardener_api.store import JobStore
from gardener_dagster.graph import (
    joined_key,
    parsed_key,
    raw_key,
    source_tables,
    tmp_key,
)
from gardener_dagster.parse import build_parse
from gardener_dagster.partitions import date_of, own_and_day_before
from gardener_dagster.planning import job_key
from gardener_dagster.resources import GCSResource, WarehouseResource
from gardener_dagster.warehouse.errors import WarehouseError
from gardener_dagster.warehouse.names import JobContext
from gardener_dagster.warehouse.objects import LoadSource, ParsedObject, choose_objects
from gardener_dagster.warehouse.results import LoadResult, Result

Step = dg.AssetsDefinition

_LONG_AGO = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def build_assets(
    config: GardenerConfig, partitions: dg.PartitionsDefinition[str]
) -> list[dg.AssetsDefinition]:
    """Every asset of the configuration."""
    assets = [build_parse(config, partitions)]
    for source in config.sources:
        assets += [_tmp_asset(source, partitions), _raw_asset(source, partitions)]
        annotations = config.annotations_of(source)
        if source.joined_table and annotations:
            assets.append(_joined_asset(source, annotations, partitions))
    return assets


class TableStep:
    """One step on one date of one source: its stage in the store, its context in the warehouse."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        source: Source,
        store: JobStore,
        warehouse: WarehouseResource,
    ) -> None:
        self.source, self.store = source, store
        self.date = date_of(context.partition_key)
        self.key = job_key(source, self.date)
        self.run_id = context.run.run_id
        self.tables = source_tables(source)
        self.bq = JobContext(
            run_id=context.run.run_id,
            date=self.date,
            attempt=context.op_execution_context.retry_number + 1,
        )
        self._context, self._warehouse = context, warehouse

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Whatever ends the step is written into the job, and told to Dagster.

        Raises:
            dg.Failure: The warehouse refused; its first line says what to do.
        """
        try:
            yield
        except WarehouseError as error:
            self.store.fail_stage(self.key, str(error), run_id=self.run_id, now=_now())
            raise dg.Failure(
                description=str(error),
                metadata=_error_metadata(error, self._warehouse.table_url(error.table)),
                allow_retries=False,
            ) from error
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            self.store.fail_stage(self.key, reason, run_id=self.run_id, now=_now())
            raise

    def enter(self, state: JobState, detail: str = "") -> None:
        """Writes the stage into the job."""
        self._context.log.info(f"{self.key}: {state}")
        self.store.stage(self.key, state, run_id=self.run_id, detail=detail, now=_now())

    def record(self, result: Result) -> None:
        """Keeps what an operation did and cost, for the metrics and the job's page."""
        done = f"{result.operation} {result.table}: {result.rows:,} rows"
        self._context.log.info(f"{self.key}: {done}")
        self.store.tables.record_operation(
            key=self.key,
            table=result.table,
            operation=result.operation,
            run_id=self.run_id,
            bq_job_ids=result.bq_job_ids,
            rows=result.rows,
            bytes=result.bytes_processed,
            slot_seconds=result.slot_seconds,
            bytes_billed=result.bytes_billed,
            seconds=result.waiting_seconds + result.running_seconds,
            objects=result.objects if isinstance(result, LoadResult) else None,
            now=_now(),
        )

    def metadata(self, table_id: str, *results: Result, about: Mapping[str, Any]) -> dict[str, Any]:
        """What a table's materialization says: what is in it, then what it cost and how."""
        slots = sum(r.slot_seconds for r in results)
        common: dict[str, Any] = {
            "table": dg.MetadataValue.url(self._warehouse.table_url(table_id)),
            "seconds waiting": round(sum(r.waiting_seconds for r in results), 2),
            "seconds running": round(sum(r.running_seconds for r in results), 2),
            "slot seconds": round(slots, 2),
            "bytes billed": sum(r.bytes_billed for r in results),
            "BigQuery jobs": dg.MetadataValue.md(
                "\n".join(f"- [{j.id}]({j.url})" for r in results for j in r.bq_jobs) or "none"
            ),
        }
        return dict(about) | common | _sql_metadata(results)


def _tmp_asset(source: Source, partitions: dg.PartitionsDefinition[str]) -> Step:
    @dg.asset(
        key=tmp_key(source),
        deps=[parsed_key(source)],
        partitions_def=partitions,
        group_name=source.experiment,
        kinds={"bigquery", "tmp"},
        op_tags={"gardener/operation": "load"},
        description=(
            f"A date's parsed objects, loaded into `{source.tmp_table}`; the date's partition is"
            " replaced as a whole, and deleted once its rows are in raw."
        ),
    )
    def load(
        context: dg.AssetExecutionContext,
        job_store: dg.ResourceParam[JobStore],
        warehouse: WarehouseResource,
        gcs: GCSResource,
    ) -> dg.MaterializeResult[None]:
        step = TableStep(context, source, job_store, warehouse)
        with step.failing():
            step.enter(JobState.LOADING)
            chosen = objects_of_parse(gcs, step.key, source.filter, job_store)
            result = warehouse.tables.load(step.tables, chosen, step.bq)
            step.record(result)
        return dg.MaterializeResult(
            metadata=step.metadata(
                source.tmp_table,
                result,
                about={
                    "dagster/row_count": result.rows,
                    "objects": result.objects,
                    "bytes": result.bytes_loaded,
                    "archives without an object": _named(chosen.missing),
                    "stale objects left out": _named(chosen.stale),
                    "objects of no archive left out": _named(chosen.orphaned),
                    "write errors of the parser": _named(chosen.write_errors),
                    "added fields": _named(result.added_fields),
                },
            )
        )

    return load


def _raw_asset(source: Source, partitions: dg.PartitionsDefinition[str]) -> Step:
    @dg.asset(
        key=raw_key(source),
        deps=[tmp_key(source)],
        partitions_def=partitions,
        group_name=source.experiment,
        kinds={"bigquery", "raw"},
        op_tags={"gardener/operation": "dedup, copy, delete"},
        description=(
            f"One row per `{', '.join(source.dedup_key)}`: duplicates are removed from"
            f" `{source.tmp_table}` (newest `parser.Time` stays), the partition is copied to"
            f" `{source.raw_table}` and deleted from tmp."
        ),
    )
    def raw(
        context: dg.AssetExecutionContext,
        job_store: dg.ResourceParam[JobStore],
        warehouse: WarehouseResource,
    ) -> dg.MaterializeResult[None]:
        step = TableStep(context, source, job_store, warehouse)
        with step.failing():
            step.enter(JobState.DEDUPLICATING)
            dedup = warehouse.tables.dedup(step.tables, source.dedup_key, step.bq)
            step.record(dedup)
            step.enter(JobState.COPYING)
            copy = warehouse.tables.copy(
                step.tables, step.bq, parse_had_no_files=had_no_files(job_store, source, step.date)
            )
            step.record(copy)
            version = job_store.tables.record_partition(
                source.raw_table, step.date, rows=copy.rows, run_id=step.run_id, now=_now()
            )
            step.enter(JobState.DELETING)
            delete = warehouse.tables.delete(step.tables, step.bq)
            step.record(delete)
            if source.joined_table is None:
                step.enter(JobState.COMPLETE)
            elif joined_key(source) not in (context.run.asset_selection or ()):
                step.enter(JobState.JOINING, "waiting for annotations")
        return dg.MaterializeResult(
            metadata=step.metadata(
                source.raw_table,
                dedup,
                copy,
                delete,
                about={
                    "dagster/row_count": copy.rows,
                    "rows before": copy.rows_before or 0,
                    "rows loaded": dedup.rows_before,
                    "duplicates removed": dedup.duplicates_removed,
                    "rows without a key": dedup.null_keys,
                    "version": version,
                },
            )
        )

    return raw


def _joined_asset(
    source: Source, annotations: Source, partitions: dg.PartitionsDefinition[str]
) -> Step:
    key, table = joined_key(source), source.joined_table
    if key is None or table is None:
        raise ValueError(f"{source.name}: target_datasets.join is not set: nothing to join into")

    @dg.asset(
        key=key,
        deps=[
            raw_key(source),
            dg.AssetDep(raw_key(annotations), partition_mapping=own_and_day_before()),
        ],
        partitions_def=partitions,
        group_name=source.experiment,
        kinds={"bigquery", "joined"},
        op_tags={"gardener/operation": "join"},
        description=(
            f"Every row of `{source.raw_table}` with its annotation from"
            f" `{annotations.raw_table}` of the same date, else of the day before."
        ),
    )
    def join(
        context: dg.AssetExecutionContext,
        job_store: dg.ResourceParam[JobStore],
        warehouse: WarehouseResource,
    ) -> dg.MaterializeResult[None]:
        step = TableStep(context, source, job_store, warehouse)
        log = job_store.tables
        with step.failing():
            inputs = log.join_inputs(source.raw_table, annotations.raw_table, step.date)
            log.begin_join(table, step.date, inputs, run_id=step.run_id, now=_now())
            step.enter(JobState.JOINING, f"run {step.run_id}")
            result = warehouse.tables.join(
                step.tables,
                step.bq,
                annotations_known_empty=had_no_files(job_store, annotations, step.date),
            )
            step.record(result)
            log.record_join(
                table, step.date, inputs, rows=result.rows, run_id=step.run_id, now=_now()
            )
            step.enter(JobState.COMPLETE)
        share = result.annotated / result.rows if result.rows else 0.0
        return dg.MaterializeResult(
            metadata=step.metadata(
                table,
                result,
                about={
                    "dagster/row_count": result.rows,
                    "rows annotated": result.annotated,
                    "share annotated": round(share, 4),
                    "annotations of the date": result.annotations,
                    "annotations of the day before": result.annotations_before,
                    "version of raw": inputs.raw,
                    "versions of annotations": f"{inputs.annotations}, {inputs.annotations_before}",
                },
            )
            | ({"nothing joined": result.skipped} if result.skipped else {})
        )

    return join


def objects_of_parse(gcs: GCSResource, key: JobKey, pattern: str, store: JobStore) -> LoadSource:
    """The parser's objects of a date that its last parse wrote, and what else lies there.

    A date that the store does not know (parsed before this gardener was) is taken as it is.
    """
    job = store.latest(key)
    started = job.leased if job and job.leased else _LONG_AGO
    return choose_objects(
        (
            ParsedObject(name=o.name, written=o.updated, size=o.size, write_error=o.write_error)
            for o in list_parsed(gcs.client, gcs.parsed_bucket, key)
        ),
        output_bucket=gcs.parsed_bucket,
        source_bucket=key.bucket,
        prefix=key.prefix,
        archives=list_archives(gcs.client, key.bucket, key.prefix, pattern).names,
        parse_started=started,
    )


def had_no_files(store: JobStore, source: Source, date: dt.date) -> bool:
    """Whether the source's last parse of the date found no archive files."""
    job = store.latest(job_key(source, date))
    return job is not None and job.parsed is not None and job.archives == 0


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _named(names: tuple[str, ...], most: int = 20) -> str:
    """A count, and the first of them: metadata is read by people."""
    more = f"\n… and {len(names) - most} more" if len(names) > most else ""
    return "\n".join([str(len(names)), *names[:most]]) + more


def _sql_metadata(results: tuple[Result, ...]) -> dict[str, Any]:
    return {
        f"SQL of {r.operation}": dg.MetadataValue.md(f"```sql\n{r.sql}\n```")
        for r in results
        if r.sql
    }


def _error_metadata(error: WarehouseError, table_url: str) -> dict[str, Any]:
    links = {"BigQuery job": error.bq_job_url, "table": table_url}
    return {
        "operation": error.operation,
        "reason": error.reason or "none given",
        "what to do": error.advice,
    } | {name: dg.MetadataValue.url(url) for name, url in links.items() if url}
