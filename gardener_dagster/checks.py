"""Asset checks: what must hold of the tables, looked at after each run. They change nothing."""

import dagster as dg

from gardener_api.config import GardenerConfig, Source
from gardener_dagster.graph import joined_key, raw_key, source_tables
from gardener_dagster.partitions import date_of
from gardener_dagster.resources import WarehouseResource
from gardener_dagster.warehouse.names import JobContext


def build_checks(config: GardenerConfig) -> list[dg.AssetChecksDefinition]:
    """The checks of every source."""
    checks = [_unique_keys(source) for source in config.sources]
    checks += [_rows_of_raw(source) for source in config.sources if source.joined_table]
    return checks


def _unique_keys(source: Source) -> dg.AssetChecksDefinition:
    key = ", ".join(source.dedup_key)

    @dg.asset_check(
        asset=raw_key(source),
        name="unique_keys",
        blocking=True,
        description=f"No two rows of a date share `{key}`; a join would multiply them.",
    )
    def unique_keys(
        context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource
    ) -> dg.AssetCheckResult:
        date = date_of(context.partition_key)
        tables = source_tables(source)
        count = warehouse.tables.survey.count_keys(
            tables,
            tables.raw_partition(date),
            source.dedup_key,
            JobContext(run_id=context.run.run_id, date=date),
        )
        return dg.AssetCheckResult(
            passed=count.duplicates == 0,
            description=(
                f"{count.duplicates:,} of {count.rows:,} rows share their {key} with another:"
                " materialize tmp and raw of the date again"
                if count.duplicates
                else f"{count.rows:,} rows, each {key} once"
            ),
            metadata={
                "rows": count.rows,
                "duplicates": count.duplicates,
                "rows without a key": count.keyless,
            },
        )

    return unique_keys


def _rows_of_raw(source: Source) -> dg.AssetChecksDefinition:
    key = joined_key(source)
    if key is None:
        raise ValueError(f"{source.name}: target_datasets.join is not set: nothing to check")

    @dg.asset_check(
        asset=key,
        name="rows_of_raw",
        description=f"As many rows as `{source.raw_table}`: the join loses and multiplies none.",
    )
    def rows_of_raw(
        context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource
    ) -> dg.AssetCheckResult:
        date = date_of(context.partition_key)
        tables = source_tables(source)
        joined, raw = warehouse.tables.survey.count_rows(
            tables,
            [tables.joined_partition(date), tables.raw_partition(date)],
            JobContext(run_id=context.run.run_id, date=date),
        )
        return dg.AssetCheckResult(
            passed=joined == raw,
            description=(
                f"{joined:,} rows, as raw"
                if joined == raw
                else f"{joined:,} rows, but raw has {raw:,}: materialize the joined date again"
            ),
            metadata={"rows": joined, "rows of raw": raw},
        )

    return rows_of_raw
