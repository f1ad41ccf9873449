"""The asset graph: for each source its chain of tables, and the one step that makes them.

A run may cover many dates: the step makes the selected tables of each. ``date_tables`` makes the
tables of one date; sensors and backfills start the runs.

Dagster's graph shows only the last part of a key, which is the same for all tables of a source. So
the asset kinds say which table a node is.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from gardener_api.config import GardenerConfig, Source
from gardener_api.store.store import JobStore
from gardener_dagster.assets.catalog import Catalog
from gardener_dagster.assets.checks import check_specs
from gardener_dagster.assets.keys import (
    accepted_audits,
    decision_of,
    joined_key,
    may_empty,
    parsed_key,
    raw_key,
    tmp_key,
)
from gardener_dagster.assets.parsed import build_parse
from gardener_dagster.assets.partitions import date_of, own_and_day_before
from gardener_dagster.assets.requesters import find_requester, refuse_cancelled
from gardener_dagster.assets.table_runs.process_priority import lower_process_priority
from gardener_dagster.assets.table_runs.runner import Event, TablesRun
from gardener_dagster.assets.table_runs.work import TablesWork
from gardener_dagster.resources import GCSResource, WarehouseResource, store_needed


def build_assets(
    config: GardenerConfig, partitions: dg.PartitionsDefinition[str], catalog: Catalog
) -> list[dg.AssetsDefinition]:
    """Build all assets of the configuration."""
    tables = [_tables(config, source, partitions, catalog) for source in config.sources]
    return [build_parse(config, partitions, catalog), *tables]


def _tables(
    config: GardenerConfig,
    source: Source,
    partitions: dg.PartitionsDefinition[str],
    catalog: Catalog,
) -> dg.AssetsDefinition:
    annotations = config.annotations_of(source) if source.joined_table else None
    rules = config.audit_rules(source)

    @dg.multi_asset(
        name=f"tables_{source.target_datasets.raw}_{source.datatype}",
        specs=list(_specs(source, annotations, partitions, catalog)),
        check_specs=check_specs(source, rules),
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(
            max_partitions_per_run=config.tables.dates_per_run
        ),
    )
    def tables(
        context: dg.AssetExecutionContext,
        job_store: dg.ResourceParam[JobStore],
        warehouse: WarehouseResource,
        gcs: GCSResource,
    ) -> Iterator[Event]:
        """Makes the selected tables of each date of the run; reports each as it is made."""
        run = context.run
        lower_process_priority(run.tags)
        with store_needed():
            refuse_cancelled(context.instance, run, job_store)
        work = TablesWork(
            source=source,
            annotations=annotations,
            selected=frozenset(context.selected_asset_keys),
            run_id=run.run_id,
            requester=find_requester(run, context.instance.get_run_by_id),
            may_empty=may_empty(run.tags),
            rules=rules,
            accept=accepted_audits(run.tags, known=rules),
            decision=decision_of(run.tags),
            store=job_store,
            warehouse=warehouse,
            gcs=gcs,
        )
        dates = [date_of(key) for key in context.partition_keys]
        with store_needed():
            yield from TablesRun(context, work, dates, at_once=config.tables.dates_at_once).events()

    return tables


def _specs(
    source: Source,
    annotations: Source | None,
    partitions: dg.PartitionsDefinition[str],
    catalog: Catalog,
) -> Iterator[dg.AssetSpec]:
    common: dict[str, Any] = {
        "partitions_def": partitions,
        "group_name": source.experiment,
        "owners": source.owners,
        "skippable": True,
    }
    yield dg.AssetSpec(
        tmp_key(source),
        deps=[parsed_key(source)],
        kinds={"bigquery", "tmp"},
        metadata=catalog.table(source, source.tmp_table),
        description=(
            f"A date's parsed objects, loaded into `{source.tmp_table}`; the date's partition is"
            " replaced as a whole, and deleted once its rows are in raw."
        ),
        **common,
    )
    yield dg.AssetSpec(
        raw_key(source),
        deps=[tmp_key(source)],
        kinds={"bigquery", "raw"},
        metadata=catalog.table(source, source.raw_table),
        description=(
            f"One row per `{', '.join(source.dedup_key)}`: duplicates are removed from"
            f" `{source.tmp_table}` (newest `parser.Time` stays), the partition is copied to"
            f" `{source.raw_table}` and deleted from tmp." + catalog.dedup_sql(source)
        ),
        **common,
    )
    key, table = joined_key(source), source.joined_table
    if annotations is None or key is None or table is None:
        return
    yield dg.AssetSpec(
        key,
        deps=[
            raw_key(source),
            dg.AssetDep(raw_key(annotations), partition_mapping=own_and_day_before()),
        ],
        kinds={"bigquery", "joined"},
        metadata=catalog.joined(source, annotations, table),
        description=(
            f"Every row of `{source.raw_table}` with its annotation from"
            f" `{annotations.raw_table}` of the same date, else of the day before."
            + catalog.join_sql(source, annotations)
        ),
        **common,
    )
