"""The asset graph: for each source, its chain of tables; the steps that make them.

A step does the warehouse's operations in their order; how it tells of them is in ``steps``. What an
operation is stands in ``warehouse``; when a step runs is the sensors' and the backfills' business.

Dagster's graph shows the last part of a key only, the same for a source's whole chain; so the kinds
say which table a node is.
"""

import datetime as dt

import dagster as dg

from gardener_api.archive import list_archives, list_parsed
from gardener_api.config import GardenerConfig, Source
from gardener_api.jobs import JobKey, JobState
from gardener_api.store import JobStore
from gardener_dagster.catalog import Catalog
from gardener_dagster.graph import joined_key, parsed_key, raw_key, tmp_key
from gardener_dagster.parse import build_parse
from gardener_dagster.partitions import own_and_day_before
from gardener_dagster.planning import job_key
from gardener_dagster.resources import GCSResource, WarehouseResource
from gardener_dagster.steps import TableStep, named, utc_now
from gardener_dagster.warehouse.objects import LoadSource, ParsedObject, choose_objects

Step = dg.AssetsDefinition

_LONG_AGO = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def build_assets(
    config: GardenerConfig, partitions: dg.PartitionsDefinition[str], catalog: Catalog
) -> list[dg.AssetsDefinition]:
    """Every asset of the configuration."""
    assets = [build_parse(config, partitions, catalog)]
    for source in config.sources:
        assets += [
            _tmp_asset(source, partitions, catalog),
            _raw_asset(source, partitions, catalog),
        ]
        annotations = config.annotations_of(source)
        if source.joined_table and annotations:
            assets.append(_joined_asset(source, annotations, partitions, catalog))
    return assets


def _tmp_asset(source: Source, partitions: dg.PartitionsDefinition[str], catalog: Catalog) -> Step:
    @dg.asset(
        key=tmp_key(source),
        deps=[parsed_key(source)],
        partitions_def=partitions,
        group_name=source.experiment,
        kinds={"bigquery", "tmp"},
        owners=source.owners,
        metadata=catalog.table(source, source.tmp_table),
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
        step = TableStep(
            context, source, holding=source.tmp_table, store=job_store, warehouse=warehouse
        )
        with step.working():
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
                    "archives without an object": named(chosen.missing),
                    "stale objects left out": named(chosen.stale),
                    "objects of no archive left out": named(chosen.orphaned),
                    "write errors of the parser": named(chosen.write_errors),
                    "added fields": named(result.added_fields),
                },
            )
        )

    return load


def _raw_asset(source: Source, partitions: dg.PartitionsDefinition[str], catalog: Catalog) -> Step:
    @dg.asset(
        key=raw_key(source),
        deps=[tmp_key(source)],
        partitions_def=partitions,
        group_name=source.experiment,
        kinds={"bigquery", "raw"},
        owners=source.owners,
        metadata=catalog.table(source, source.raw_table),
        op_tags={"gardener/operation": "dedup, copy, delete"},
        description=(
            f"One row per `{', '.join(source.dedup_key)}`: duplicates are removed from"
            f" `{source.tmp_table}` (newest `parser.Time` stays), the partition is copied to"
            f" `{source.raw_table}` and deleted from tmp." + catalog.dedup_sql(source)
        ),
    )
    def raw(
        context: dg.AssetExecutionContext,
        job_store: dg.ResourceParam[JobStore],
        warehouse: WarehouseResource,
    ) -> dg.MaterializeResult[None]:
        step = TableStep(
            context, source, holding=source.tmp_table, store=job_store, warehouse=warehouse
        )
        with step.working():
            step.enter(JobState.DEDUPLICATING)
            dedup = warehouse.tables.dedup(step.tables, source.dedup_key, step.bq)
            step.record(dedup)
            step.enter(JobState.COPYING)
            copy = warehouse.tables.copy(
                step.tables,
                step.bq,
                parse_had_no_files=had_no_files(job_store, source, step.date),
                may_empty=step.may_empty,
            )
            step.record(copy)
            version = job_store.tables.record_partition(
                source.raw_table, step.date, rows=copy.rows, run_id=step.run_id, now=utc_now()
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
    source: Source,
    annotations: Source,
    partitions: dg.PartitionsDefinition[str],
    catalog: Catalog,
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
        owners=source.owners,
        metadata=catalog.joined(source, annotations, table),
        op_tags={"gardener/operation": "join"},
        description=(
            f"Every row of `{source.raw_table}` with its annotation from"
            f" `{annotations.raw_table}` of the same date, else of the day before."
            + catalog.join_sql(source, annotations)
        ),
    )
    def join(
        context: dg.AssetExecutionContext,
        job_store: dg.ResourceParam[JobStore],
        warehouse: WarehouseResource,
    ) -> dg.MaterializeResult[None]:
        step = TableStep(context, source, holding=table, store=job_store, warehouse=warehouse)
        log = job_store.tables
        with step.working():
            inputs = log.join_inputs(source.raw_table, annotations.raw_table, step.date)
            log.begin_join(table, step.date, inputs, run_id=step.run_id, now=utc_now())
            step.enter(JobState.JOINING, f"run {step.run_id}")
            result = warehouse.tables.join(
                step.tables,
                step.bq,
                annotations_known_empty=had_no_files(job_store, annotations, step.date),
                may_empty=step.may_empty,
            )
            step.record(result)
            log.record_join(
                table, step.date, inputs, rows=result.rows, run_id=step.run_id, now=utc_now()
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
